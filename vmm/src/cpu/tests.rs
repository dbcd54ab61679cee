//! CPUID as a guest reads it.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::{Topology, TscDeadline, boot_msrs, guest_cpuid};

const INTEL: [u8; 12] = *b"GenuineIntel";
const AMD: [u8; 12] = *b"AuthenticAMD";
const HYGON: [u8; 12] = *b"HygonGenuine";

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
}

/// What KVM supports on a host of this vendor: every bit set where a test looks for what is taken away.
fn supported(vendor: [u8; 12], highest: u32) -> Vec<kvm_cpuid_entry2> {
    let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().unwrap());
    let all = u32::MAX;
    let mut leaves = vec![
        leaf(0, 0, [highest, word(0), word(8), word(4)]),
        leaf(1, 0, [0x806f8, 0x7f40_0800, all, all]),
        // Data and instruction caches, second and third level, and the end of the list.
        leaf(4, 0, [0xfc00_c121, 1, 1, 0]),
        leaf(4, 1, [0xfc00_c122, 1, 1, 0]),
        leaf(4, 2, [0xfc00_c143, 1, 1, 0]),
        leaf(4, 3, [0xfc1f_c163, 1, 1, 0]),
        leaf(4, 4, [0; 4]),
        leaf(5, 0, [64, 64, 3, 0]),
        leaf(6, 0, [0xff, 1, 1, 1]),
        leaf(7, 0, [2, all, all, all]),
        leaf(0xa, 0, [0x0730_0802, 0, 0, 0x603]),
        leaf(0xb, 0, [9, 9, 9, 9]),
        leaf(0xd, 0, [7, 0x340, 0x340, 0]),
        leaf(0x12, 0, [1; 4]),
        leaf(0x15, 0, [2, 100, 25_000_000, 0]),
        leaf(0x16, 0, [2500, 3000, 100, 0]),
        leaf(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        leaf(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        leaf(0x8000_0000, 0, [0x8000_0028, 0, 0, 0]),
        leaf(0x8000_0001, 0, [0, 0, all, all]),
        leaf(0x8000_0007, 0, [0, 0, 0, 1 << 8]),
        leaf(0x8000_0008, 0, [0x3030, 0, 0x0002_70ff, 0]),
        leaf(0x8000_000a, 0, [1; 4]),
        leaf(0x8000_001d, 0, [0x4121, 1, 1, 0]),
        leaf(0x8000_001d, 3, [0x3_c163, 1, 1, 0]),
        leaf(0x8000_001e, 0, [99, 0x1ff, 0x7ff, 0]),
        leaf(0x8000_001f, 0, [1; 4]),
        leaf(0x8000_0022, 0, [1; 4]),
        leaf(0x8000_0026, 0, [1; 4]),
    ];
    leaves.retain(|leaf| leaf.function >= 0x4000_0000 || leaf.function <= highest);
    leaves
}

struct Guest(CpuId);

impl Guest {
    /// What vCPU `id` of `count` sees on a host of `vendor`, with TSC deadline and a TSC of 2.5 GHz.
    fn new(vendor: [u8; 12], id: u32, count: u32) -> Self {
        Self::on(&supported(vendor, 0x1f), id, count, Some(2_500_000), TscDeadline::Offered)
    }

    fn on(host: &[kvm_cpuid_entry2], id: u32, count: u32, khz: Option<u32>, deadline: TscDeadline) -> Self {
        Self::in_topology(host, id, Topology { vcpus: count, smt: false }, khz, deadline)
    }

    /// The same with two threads to a core.
    fn of_threads(vendor: [u8; 12], id: u32, count: u32) -> Self {
        let topology = Topology { vcpus: count, smt: true };
        Self::in_topology(&supported(vendor, 0x1f), id, topology, None, TscDeadline::Offered)
    }

    fn in_topology(
        host: &[kvm_cpuid_entry2],
        id: u32,
        topology: Topology,
        khz: Option<u32>,
        deadline: TscDeadline,
    ) -> Self {
        Self(guest_cpuid(&CpuId::from_entries(host).unwrap(), id, topology, khz, deadline).unwrap())
    }

    /// EAX, EBX, ECX and EDX; zeroes for what is not there, as KVM answers.
    fn get(&self, function: u32, index: u32) -> [u32; 4] {
        let mut found =
            self.0.as_slice().iter().filter(|leaf| (leaf.function, leaf.index) == (function, index));
        let first = found.next();
        assert!(found.next().is_none(), "leaf {function:#x}.{index} is there twice");
        first.map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
    }
}

fn bits(value: u32, high: u32, low: u32) -> u32 {
    (value >> low) & (u32::MAX >> (31 - (high - low)))
}

#[test]
fn apic_ids_are_vcpu_ids_everywhere() {
    for (id, count) in [(0, 1), (1, 2), (2, 3), (31, 32)] {
        let intel = Guest::new(INTEL, id, count);
        assert_eq!(bits(intel.get(1, 0)[1], 31, 24), id);
        for (function, index) in [(0xb, 0), (0xb, 1), (0x1f, 0), (0x1f, 1)] {
            assert_eq!(intel.get(function, index)[3], id, "{function:#x}.{index}");
        }
        let amd = Guest::new(AMD, id, count);
        assert_eq!(amd.get(0x8000_001e, 0), [id, id, 0, 0]);
    }
}

#[test]
fn topology_is_one_socket_with_one_thread_per_core() {
    for (count, width) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (32, 5)] {
        let guest = Guest::new(INTEL, 0, count);
        assert_eq!(guest.get(0xb, 0), [0, 1, 0x100, 0], "{count}");
        assert_eq!(guest.get(0xb, 1), [width, count, 0x201, 0], "{count}");
        assert_eq!(guest.get(0x1f, 1), guest.get(0xb, 1));
        assert_eq!(bits(guest.get(1, 0)[1], 23, 16), 1 << width);
        assert_eq!(bits(guest.get(1, 0)[3], 28, 28), u32::from(count > 1));
    }
}

#[test]
fn two_threads_are_a_core_when_that_is_asked_for() {
    for (count, width) in [(2, 1), (4, 2), (6, 3), (32, 5)] {
        let guest = Guest::of_threads(INTEL, 3 % count, count);
        assert_eq!(guest.get(0xb, 0), [1, 2, 0x100, 3 % count], "{count}");
        assert_eq!(guest.get(0xb, 1), [width, count, 0x201, 3 % count], "{count}");
        for index in 0..3 {
            assert_eq!(bits(guest.get(4, index)[0], 25, 14), 1, "a core's threads share its caches");
            assert_eq!(bits(guest.get(4, index)[0], 31, 26), (1 << width) / 2 - 1, "cores");
        }
        let amd = Guest::of_threads(AMD, 3 % count, count);
        assert_eq!(amd.get(0x8000_001e, 0), [3 % count, 0x100 + (3 % count) / 2, 0, 0]);
        assert_eq!(bits(amd.get(0x8000_001d, 0)[0], 25, 14), 1);
    }
    let mut host = supported(AMD, 0x1f);
    for leaf in &mut host {
        match leaf.function {
            0x8000_0000 => leaf.eax = 0x8000_0008,
            0x8000_0001 => leaf.ecx &= !(1 << 22),
            _ => {}
        }
    }
    let topology = Topology { vcpus: 2, smt: true };
    let amd = Guest::in_topology(&host, 1, topology, None, TscDeadline::Offered);
    assert_eq!(amd.get(0x8000_001e, 0), [1, 0x100, 0, 0], "also where the host has no such leaf");
    assert_eq!(bits(amd.get(0x8000_0001, 0)[2], 22, 22), 1);
    assert_eq!(Guest::of_threads(INTEL, 0, 1).get(0xb, 0), [0, 1, 0x100, 0], "an only vCPU is a core");
}

#[test]
fn topology_leaves_are_indexed_and_in_range() {
    let guest = Guest::on(&supported(AMD, 0x7), 0, 2, None, TscDeadline::Offered);
    assert_eq!(guest.get(0, 0)[0], 0xb, "raised so that the topology can be seen");
    assert_eq!(guest.get(0xb, 1)[1], 2);
    assert_eq!(guest.get(0x1f, 0), [0; 4]);
    assert!(guest.0.as_slice().iter().filter(|leaf| leaf.function == 0xb).all(|leaf| leaf.flags == 1));
}

#[test]
fn intel_caches_are_shared_by_a_core_or_by_all() {
    let sharing = |count, index| {
        let eax = Guest::new(INTEL, 0, count).get(4, index)[0];
        (bits(eax, 25, 14), bits(eax, 31, 26))
    };
    for (count, space) in [(1, 1), (4, 4), (6, 8), (32, 32)] {
        for index in 0..3 {
            assert_eq!(sharing(count, index), (0, space - 1));
        }
        assert_eq!(sharing(count, 3), (space - 1, space - 1));
    }
    assert_eq!(Guest::new(INTEL, 0, 4).get(4, 4), [0; 4], "the end of the list stays");
}

#[test]
fn amd_counts_are_its_own() {
    for vendor in [AMD, HYGON] {
        let guest = Guest::new(vendor, 0, 6);
        let size = guest.get(0x8000_0008, 0)[2];
        assert_eq!((bits(size, 7, 0), bits(size, 15, 12), bits(size, 17, 16)), (5, 3, 2));
        assert_eq!(bits(guest.get(0x8000_001d, 0)[0], 25, 14), 0);
        assert_eq!(bits(guest.get(0x8000_001d, 3)[0], 25, 14), 5);
        assert_eq!(bits(guest.get(0x8000_0001, 0)[2], 1, 1), 1, "CmpLegacy");
        assert_eq!(bits(guest.get(7, 0)[3], 29, 29), 0, "no IA32_ARCH_CAPABILITIES");
    }
    assert_eq!(bits(Guest::new(AMD, 0, 1).get(0x8000_0001, 0)[2], 1, 1), 0);
    let intel = Guest::new(INTEL, 0, 6);
    assert_eq!(intel.get(0x8000_0008, 0)[2], 0x0002_70ff, "reserved on Intel");
    assert_eq!(bits(intel.get(7, 0)[3], 29, 29), 1);
}

#[test]
fn a_guest_knows_that_it_is_one() {
    let guest = Guest::new(INTEL, 0, 1);
    let ecx = guest.get(1, 0)[2];
    assert_eq!((bits(ecx, 31, 31), bits(ecx, 21, 21)), (1, 1), "hypervisor, x2APIC");
    assert_eq!(guest.get(0x4000_0000, 0)[1..], [0x4b4d_564b, 0x564b_4d56, 0x4d]);
    assert_eq!(guest.get(0x4000_0001, 0)[0], 0x0100_7efb);
    assert_eq!(guest.get(0x8000_0007, 0)[3], 1 << 8, "invariant TSC");
}

#[test]
fn frequencies_are_told_where_they_are_known() {
    let guest = Guest::new(INTEL, 0, 1);
    assert_eq!(guest.get(0x4000_0000, 0)[0], 0x4000_0010);
    assert_eq!(guest.get(0x4000_0010, 0), [2_500_000, 1_000_000, 0, 0]);
    assert_eq!((guest.get(0x15, 0), guest.get(0x16, 0)), ([0; 4], [0; 4]));

    let unknown = Guest::on(&supported(INTEL, 0x1f), 0, 1, None, TscDeadline::Offered);
    assert_eq!(unknown.get(0x4000_0000, 0)[0], 0x4000_0001);
    assert_eq!(unknown.get(0x4000_0010, 0), [0; 4]);
}

#[test]
fn tsc_deadline_is_offered_when_kvm_has_it() {
    let host = supported(INTEL, 0x1f);
    for (deadline, expected) in [(TscDeadline::Offered, 1), (TscDeadline::Absent, 0)] {
        assert_eq!(bits(Guest::on(&host, 0, 1, None, deadline).get(1, 0)[2], 24, 24), expected);
    }
}

#[test]
fn what_a_microvm_does_not_have_is_hidden() {
    for vendor in [INTEL, AMD] {
        let guest = Guest::new(vendor, 0, 2);
        for function in [5, 0xa, 0x12, 0x8000_000a, 0x8000_001f, 0x8000_0022, 0x8000_0026] {
            assert_eq!(guest.get(function, 0), [0; 4], "{function:#x}");
        }
        let ecx = guest.get(1, 0)[2];
        for (bit, name) in [(3, "MONITOR"), (5, "VMX"), (15, "PDCM"), (27, "OSXSAVE")] {
            assert_eq!(bits(ecx, bit, bit), 0, "{name}");
        }
        let ecx = guest.get(0x8000_0001, 0)[2];
        for (bit, name) in [(2, "SVM"), (10, "IBS"), (23, "PerfCtrExtCore"), (29, "MONITORX")] {
            assert_eq!(bits(ecx, bit, bit), 0, "{name}");
        }
        assert_eq!(bits(guest.get(7, 0)[1], 2, 2), 0, "SGX");
        assert_eq!(guest.get(6, 0), [4, 0, 0, 0], "only the APIC timer that does not stop");
    }
}

#[test]
fn what_it_does_have_is_passed_on() {
    let guest = Guest::new(INTEL, 0, 1);
    assert_eq!(guest.get(0xd, 0), [7, 0x340, 0x340, 0]);
    let [eax, ebx, ecx, edx] = guest.get(1, 0);
    assert_eq!((eax, bits(ebx, 15, 8)), (0x806f8, 8), "family and model, CLFLUSH size");
    assert_eq!((bits(ecx, 28, 28), bits(edx, 25, 25)), (1, 1), "AVX, SSE");
}

#[test]
fn nothing_supported_is_not_an_error() {
    let guest = Guest::on(&[], 0, 0, Some(1), TscDeadline::Absent);
    assert!(guest.0.as_slice().is_empty());
    let guest = Guest::on(&supported(INTEL, 0x1f), u32::MAX, u32::MAX, None, TscDeadline::Absent);
    assert_eq!(guest.get(0xb, 1)[1], u32::MAX);
}

#[test]
fn msrs_are_few_and_not_repeated() {
    let msrs = boot_msrs();
    assert_eq!(msrs.map(|msr| (msr.index, msr.data)), [(0x1a0, 1), (0x2ff, 0x806)]);
}
