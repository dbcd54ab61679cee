//! CPU templates: what a guest's CPU shows, changed bit by bit, in the format of Firecracker's custom CPU templates.
//!
//! ```json
//! {"kvm_capabilities": ["191", "!56"],
//!  "cpuid_modifiers": [{"leaf": "0x7", "subleaf": "0x0", "flags": 1,
//!                       "modifiers": [{"register": "ecx", "bitmap": "0bxxxxxxxxxxxxxxx0_xxxxxxxxxxxxxxxx"}]}],
//!  "msr_modifiers": [{"addr": "0x8b", "bitmap": "0b1111"}]}
//! ```
//!
//! A modifier applies to what the guest would have without it, and the last one wins. A leaf or register that KVM does
//! not have is an error: a template that cannot be kept to is not half kept to. What tells vCPUs apart stays as it is
//! (see `kept.rs`).
//!
//! The order: CPUID, then the registers that every guest gets, then those of the template.

mod bitmap;
mod builtin;
mod capability;
mod cpuid;
mod error;
mod kept;
mod number;
mod source;
mod static_template;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};

pub use self::bitmap::Bitmap;
pub use self::builtin::builtins;
pub use self::capability::KvmCapability;
pub use self::error::{TemplateError, TemplateFileError};
pub use self::kept::kept_bits;
pub use self::source::CpuConfig;
pub use self::static_template::StaticTemplate;

/// The most modifiers of one kind that a template has, and registers that one leaf has. KVM takes at most 256 CPUID
/// leaves, and fewer than 256 registers at a time (`MAX_IO_MSRS`).
pub const MAX_MODIFIERS: usize = 255;

/// `cpu-config`: what to change of a vCPU. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuTemplate {
    /// What KVM has to have besides.
    #[serde(default)]
    pub kvm_capabilities: Vec<KvmCapability>,
    /// Changes to CPUID leaves, in their order.
    #[serde(default)]
    pub cpuid_modifiers: Vec<LeafModifier>,
    /// Changes to model-specific registers, in their order.
    #[serde(default)]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// Changes to one CPUID leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafModifier {
    /// The leaf: EAX when CPUID is executed.
    #[serde(with = "number")]
    pub leaf: u32,
    /// The subleaf: ECX when CPUID is executed; 0 for leaves that have none.
    #[serde(with = "number")]
    pub subleaf: u32,
    /// `flags` of `struct kvm_cpuid_entry2`. Whether the subleaf counts (1) is a fact that KVM knows, so that bit is its.
    pub flags: u32,
    /// Changes to its registers, in their order.
    pub modifiers: Vec<RegisterModifier>,
}

/// Changes to one register of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterModifier {
    /// Which one.
    pub register: CpuidRegister,
    /// What becomes of its bits.
    pub bitmap: Bitmap<32>,
}

/// A register in which CPUID answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the registers' names")]
pub enum CpuidRegister {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Changes to one model-specific register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsrModifier {
    /// The register's number.
    #[serde(with = "number")]
    pub addr: u32,
    /// What becomes of its bits.
    pub bitmap: Bitmap<64>,
}

impl CpuTemplate {
    /// Reads a template from JSON and validates it.
    ///
    /// # Errors
    /// What is wrong, with its line and column.
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        let template: Self = json::read(text.as_bytes())?;
        template.validate().map_err(|error| JsonError::of(&error))?;
        Ok(template)
    }

    /// Checks that the template is not longer than KVM can take.
    ///
    /// # Errors
    /// [`TemplateError::TooMany`]
    pub fn validate(&self) -> Result<(), TemplateError> {
        let within = |what, count| {
            if count > MAX_MODIFIERS { Err(TemplateError::TooMany { what, count }) } else { Ok(()) }
        };
        within("KVM capabilities", self.kvm_capabilities.len())?;
        within("CPUID modifiers", self.cpuid_modifiers.len())?;
        within("MSR modifiers", self.msr_modifiers.len())?;
        self.cpuid_modifiers
            .iter()
            .try_for_each(|leaf| within("modifiers of one CPUID leaf", leaf.modifiers.len()))
    }

    /// The model-specific registers that the template changes, each once.
    pub fn msr_indices(&self) -> Vec<u32> {
        let mut indices: Vec<u32> = Vec::with_capacity(self.msr_modifiers.len());
        for MsrModifier { addr, .. } in &self.msr_modifiers {
            if !indices.contains(addr) {
                indices.push(*addr);
            }
        }
        indices
    }

    /// What register `index` has under this template when it has `value` without.
    pub fn msr_value(&self, index: u32, value: u64) -> u64 {
        let modifiers = self.msr_modifiers.iter().filter(|modifier| modifier.addr == index);
        modifiers.fold(value, |value, modifier| modifier.bitmap.apply(value))
    }
}
