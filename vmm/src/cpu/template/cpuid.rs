//! A template's CPUID modifiers, applied to the leaves that a vCPU would have without them.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::topology::kept_bits;
use super::{CpuTemplate, CpuidRegister, LeafModifier, TemplateError};
use crate::cpu::CpuError;

impl CpuTemplate {
    /// `guest`, the leaves of a vCPU, as this template wants them. A leaf that is only among those that KVM supports
    /// (`supported`) is one that rvmm leaves out: it begins with zeroes.
    ///
    /// # Errors
    /// A leaf that KVM does not have, or more leaves than it takes.
    pub fn apply_to_cpuid(&self, guest: &CpuId, supported: &CpuId) -> Result<CpuId, CpuError> {
        let mut leaves = guest.as_slice().to_vec();
        for modifier in &self.cpuid_modifiers {
            modifier.apply(&mut leaves, supported.as_slice())?;
        }
        CpuId::from_entries(&leaves).map_err(|_| CpuError::TooManyLeaves(leaves.len()))
    }
}

impl LeafModifier {
    fn apply(
        &self,
        leaves: &mut Vec<kvm_cpuid_entry2>,
        supported: &[kvm_cpuid_entry2],
    ) -> Result<(), TemplateError> {
        let here = |entry: &kvm_cpuid_entry2| (entry.function, entry.index) == (self.leaf, self.subleaf);
        if let Some(entry) = leaves.iter_mut().find(|entry| here(entry)) {
            self.change(entry);
        } else if let Some(left_out) = supported.iter().find(|entry| here(entry)) {
            let mut entry = kvm_cpuid_entry2 { eax: 0, ebx: 0, ecx: 0, edx: 0, ..*left_out };
            self.change(&mut entry);
            leaves.push(entry);
        } else {
            return Err(TemplateError::NoLeaf { leaf: self.leaf, subleaf: self.subleaf });
        }
        Ok(())
    }

    fn change(&self, entry: &mut kvm_cpuid_entry2) {
        // Whether a subleaf counts is for KVM to say: a guest would be answered from another one.
        let index = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        entry.flags = (self.flags & !index) | (entry.flags & index);
        let [eax, ebx, ecx, edx] = kept_bits(self.leaf);
        for modifier in &self.modifiers {
            let (register, kept) = match modifier.register {
                CpuidRegister::Eax => (&mut entry.eax, eax),
                CpuidRegister::Ebx => (&mut entry.ebx, ebx),
                CpuidRegister::Ecx => (&mut entry.ecx, ecx),
                CpuidRegister::Edx => (&mut entry.edx, edx),
            };
            let changed = modifier.bitmap.apply(u64::from(*register)) as u32;
            *register = (*register & kept) | (changed & !kept);
        }
    }
}
