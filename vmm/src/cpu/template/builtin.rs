//! Templates that rvmm brings along, by name. What each is for, and what it was measured to do, is in
//! docs/cpu-templates.md.

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
        summary: "for a KVM without hardware virtualization of its own: hides what is slow or missing when CPUs are emulated",
        template: emulated,
    }]
}

fn emulated() -> CpuTemplate {
    CpuTemplate {
        cpuid_modifiers: vec![hide(0x7, 0, &[(CpuidRegister::Ecx, 1 << 16)])],
        ..CpuTemplate::default()
    }
}

/// Clears bits of a leaf.
fn hide(leaf: u32, flags: u32, registers: &[(CpuidRegister, u64)]) -> LeafModifier {
    let modifiers = registers
        .iter()
        .map(|(register, bits)| RegisterModifier { register: *register, bitmap: Bitmap::clear(*bits) })
        .collect();
    LeafModifier { leaf, subleaf: 0, flags, modifiers }
}
