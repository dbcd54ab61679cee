//! Saved vCPUs: any bytes as a snapshot has them, and as much CPUID as they bring.
//!
//! Holds: no panic, and no more memory than the input deserves; what is validated has its vCPUs in order; a guest fits the
//! host that has exactly its leaves, and one that has every bit, unless that one lays its extended state out otherwise.
#![no_main]

use kvm_bindings::kvm_cpuid_entry2;
use libfuzzer_sys::fuzz_target;
use vmm::cpu::{CpuMismatch, check_compatible};
use vmm::vcpu::{VcpuStateV1, validate};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(vcpus) = postcard::from_bytes::<Vec<VcpuStateV1>>(bytes) {
        let valid = validate(&vcpus, vcpus.len()).is_ok();
        assert!(!valid || vcpus.iter().zip(0..).all(|(vcpu, id)| vcpu.id == id));
        for vcpu in &vcpus {
            let _ = vcpu.cpuid();
            compare(&vcpu.cpuid);
        }
    }
    compare(&leaves(bytes));
});

fn compare(saved: &[kvm_cpuid_entry2]) {
    check_compatible(saved, saved, None).unwrap();
    let all: Vec<_> = saved
        .iter()
        .map(|leaf| {
            let all = u32::MAX;
            let (ebx, ecx, edx) =
                if leaf.function == 0 { (leaf.ebx, leaf.ecx, leaf.edx) } else { (all, all, all) };
            kvm_cpuid_entry2 { eax: all, ebx, ecx, edx, ..*leaf }
        })
        .collect();
    match check_compatible(saved, &all, None) {
        Ok(()) => {}
        Err(CpuMismatch::Missing(missing)) => {
            assert!(missing.iter().all(|name| name.starts_with("XSAVE")), "{missing:?}");
        }
        Err(other) => panic!("{other}"),
    }
    // A host that has nothing.
    let _ = check_compatible(saved, &[], None);
    let _ = check_compatible(&all, saved, None);
}

/// Leaves of 18 bytes each, of the functions that are looked at.
fn leaves(bytes: &[u8]) -> Vec<kvm_cpuid_entry2> {
    const FUNCTIONS: [u32; 8] = [0, 1, 7, 0xd, 0x4000_0001, 0x8000_0001, 0x8000_0008, 0x8000_0021];
    let (leaves, _) = bytes.as_chunks::<18>();
    leaves
        .iter()
        .map(|leaf| {
            let word = |at: usize| u32::from_le_bytes(leaf[at..at + 4].try_into().unwrap());
            kvm_cpuid_entry2 {
                function: FUNCTIONS[usize::from(leaf[0]) % FUNCTIONS.len()],
                index: u32::from(leaf[1]),
                eax: word(2),
                ebx: word(6),
                ecx: word(10),
                edx: word(14),
                ..kvm_cpuid_entry2::default()
            }
        })
        .collect()
}
