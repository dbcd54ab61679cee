//! Where a comparison was made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number;

/// The host.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// How many of them there are.
    pub(crate) cpus: usize,
    /// Memory, in bytes.
    pub(crate) memory: u64,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// The distribution.
    pub(crate) system: String,
    /// Whether it is a VM itself.
    pub(crate) virtual_machine: bool,
    /// Whether its processor is emulated instruction by instruction.
    pub(crate) emulated: bool,
    /// What runs VMs.
    pub(crate) kvm: Kvm,
    /// Version of control groups, 1 or 2, or none.
    pub(crate) cgroups: Option<u32>,
    /// Whether it was measured with root rights.
    pub(crate) root: bool,
    /// `always`, `madvise` or `never`.
    pub(crate) transparent_hugepage: Option<String>,
    /// Load of the last minute, before and after.
    #[serde(deserialize_with = "number::two")]
    #[schemars(with = "[Option<f64>; 2]")]
    pub(crate) load: [f64; 2],
}

/// What runs VMs.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kvm {
    /// `/dev/kvm` can be opened.
    pub(crate) usable: bool,
    /// The kernel's module behind it.
    pub(crate) served_by: String,
    /// By hardware virtualization, so that ordinary Linux guests run.
    pub(crate) hardware: bool,
}

impl Host {
    /// What a reader must know before any figure, if there is something: that VMs are at a disadvantage here.
    pub(crate) fn warning(&self) -> Option<String> {
        let on = "ratios here are not those of bare metal";
        match () {
            () if !self.kvm.usable => Some("/dev/kvm cannot be used here: no VM was measured".to_owned()),
            () if self.emulated => Some(format!(
                "the host's processor is emulated, and KVM with it: each exit of a VM costs many times what hardware takes, and {on}"
            )),
            () if !self.kvm.hardware => Some(format!(
                "KVM is served by {} without hardware virtualization: {on}, and ordinary Linux guests do not run",
                self.kvm.served_by
            )),
            () if self.virtual_machine => {
                Some(format!("this host is a VM itself, so that its VMs are nested: {on}"))
            }
            () => None,
        }
    }
}
