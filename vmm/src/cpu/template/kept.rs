//! The bits of CPUID that are not a template's: first those that tell vCPUs apart and count them. A template is for all vCPUs of all guests, and would give
//! every vCPU the number that it was written down with, so these bits stay as they are. (Firecracker writes them
//! after the template, which comes to the same: a template that was dumped from a whole machine works.)

/// Bits of EAX, EBX, ECX and EDX of `leaf` that no template changes. Intel SDM 2A "CPUID"; AMD APM 3, appendix E.
pub fn kept_bits(leaf: u32) -> [u32; 4] {
    const ALL: u32 = u32::MAX;
    match leaf {
        // APIC id and number of APIC ids; HTT: there is more than one.
        0x1 => [0, 0xffff_0000, 0, 1 << 28],
        // Who shares a cache, and the number of cores.
        0x4 => [0xffff_c000, 0, 0, 0],
        0x8000_001d => [0x03ff_c000, 0, 0, 0],
        // Core count, and the width of its part of the APIC id; reserved on Intel.
        0x8000_0008 => [0, 0, 0x0000_f0ff, 0],
        // The topology.
        0xb | 0x1f | 0x8000_001e => [ALL; 4],
        _ => [0; 4],
    }
}

/// Bits of EAX, EBX, ECX and EDX of `leaf` that KVM keeps up to date while the guest runs, whatever they were set to.
pub(super) fn running_bits(leaf: u32) -> [u32; 4] {
    match leaf {
        // MONITOR and OSXSAVE; APIC.
        0x1 => [0, 0, 1 << 3 | 1 << 27, 1 << 9],
        // OSPKE.
        0x7 => [0, 0, 1 << 4, 0],
        // Size of the state in use.
        0xd => [0, u32::MAX, 0, 0],
        // KVM_FEATURE_PV_UNHALT.
        0x4000_0001 => [1 << 7, 0, 0, 0],
        // SYSCALL.
        0x8000_0001 => [0, 0, 0, 1 << 11],
        _ => [0; 4],
    }
}
