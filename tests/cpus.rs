//! The virtual CPUs that a guest sees.

use std::collections::HashMap;

use crate::support::Rvmm;
use crate::support::kvm::require_kvm;

/// What the guest `cpuid` printed: EAX, EBX, ECX and EDX by leaf and subleaf.
pub(crate) fn leaves(cpuid: Rvmm) -> HashMap<(u32, u32), [u32; 4]> {
    let ended = cpuid.run();
    ended.assert_clean();
    let line = |line: &str| {
        let words: Vec<u32> =
            line.split([' ', ':']).filter_map(|word| u32::from_str_radix(word, 16).ok()).collect();
        ((words[0], words[1]), [words[2], words[3], words[4], words[5]])
    };
    ended.stdout.lines().map(|text| line(text.strip_prefix("leaf ").unwrap())).collect()
}

#[test]
fn every_cpu_starts_and_knows_its_number() {
    require_kvm!();
    for count in [1, 2, 4, 9] {
        let count_text = count.to_string();
        let ended = Rvmm::guest("smp").args(["--cpus", &count_text, "--cmdline", &count_text]).run();
        ended.assert_clean();
        let mut lines: Vec<&str> = ended.stdout.lines().collect();
        assert_eq!(lines.pop(), Some("end"));
        lines.sort_unstable();
        // By the local APIC, by CPUID leaf 1 and by leaf 0xb.
        let expected: Vec<String> =
            (0..count).map(|cpu| format!("cpu {cpu:08x} {cpu:08x} {cpu:08x}")).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn thirty_two_cpus_can_be_had() {
    require_kvm!();
    Rvmm::guest("hello").args(["--cpus", "32"]).run().assert_clean().assert_stdout("hello, world\n");
}

#[test]
fn cpuid_shows_a_hypervisor_and_the_topology() {
    require_kvm!();
    for count in [1, 4] {
        let leaves = leaves(Rvmm::guest("cpuid").args(["--cpus", &count.to_string()]));
        let [_, _, features, _] = leaves[&(1, 0)];
        assert_ne!(features & 1 << 31, 0, "hypervisor bit");
        let [_, ebx, ecx, edx] = leaves[&(0x4000_0000, 0)];
        let signature: Vec<u8> = [ebx, ecx, edx].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(signature, b"KVMKVMKVM\0\0\0");
        // Leaf 0xb: a thread to a core, then all cores of the package (Intel SDM 3A, 10.9.2).
        let [_, threads, level, _] = leaves[&(0xb, 0)];
        assert_eq!((threads & 0xffff, level >> 8 & 0xff), (1, 1));
        let [_, cpus, level, _] = leaves[&(0xb, 1)];
        assert_eq!((cpus & 0xffff, level >> 8 & 0xff), (count, 2));
    }
}
