//! What a virtual CPU is: its CPUID leaves and its model-specific registers.
//!
//! The local APIC needs nothing: KVM resets it with LINT0 open on the boot vCPU, Linux sets LINT1 itself, and the 8259 that would
//! be heard through LINT0 are masked when the VM is made. Two calls to KVM for every vCPU are saved.

mod compatibility;
mod cpuid;
mod msrs;
pub mod template;

#[cfg(test)]
mod tests;

pub use self::compatibility::{CpuDescription, CpuMismatch, check_compatible, describe};
pub use self::cpuid::{CpuError, Topology, TscDeadline, guest_cpuid};
pub use self::msrs::boot_msrs;
