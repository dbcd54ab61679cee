//! Templates that rvmm brings along, by name. What each is for, and what it was measured to do, is in
//! docs/cpu-templates.md.

use kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

use super::{Bitmap, CpuTemplate, CpuidRegister, LeafModifier, RegisterModifier};

/// A template with a name.
pub struct Builtin {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is for, in one line.
    pub summary: &'static str,
    /// Makes it.
    pub template: fn() -> CpuTemplate,
}

/// All of them.
pub fn builtins() -> &'static [Builtin] {
    &[Builtin {
        name: "emulated",
        summary: "for a host whose processor is itself emulated (QEMU without KVM): hides ERMS, so that copies go by 8 bytes",
        template: emulated,
    }]
}

/// Leaf 7 EBX: "enhanced rep movsb/stosb" (Intel SDM 2A, "CPUID").
const L7_EBX_ERMS: u64 = 1 << 9;

/// Linux and C libraries copy by single bytes (`rep movsb`) where ERMS is shown, as hardware does many at a time. An
/// emulator does one at a time.
fn emulated() -> CpuTemplate {
    let erms = RegisterModifier { register: CpuidRegister::Ebx, bitmap: Bitmap::clear(L7_EBX_ERMS) };
    let leaf =
        LeafModifier { leaf: 7, subleaf: 0, flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX, modifiers: vec![erms] };
    CpuTemplate { cpuid_modifiers: vec![leaf], ..CpuTemplate::default() }
}
