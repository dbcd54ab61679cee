//! Saved guests and hosts that are made up.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::*;
use crate::cpu::{Topology, TscDeadline, guest_cpuid};

const INTEL: [u8; 12] = *b"GenuineIntel";
const AMD: [u8; 12] = *b"AuthenticAMD";

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
}

/// What KVM supports on a CPU with AVX-512 and protection keys.
fn host(vendor: [u8; 12]) -> Vec<kvm_cpuid_entry2> {
    let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().unwrap());
    vec![
        leaf(0, 0, [0x1f, word(0), word(8), word(4)]),
        leaf(1, 0, [0x806f8, 0, 0x7ed8_3203, 0x078b_fbff]),
        leaf(7, 0, [2, 0xd19f_07ab, 0x0000_401e, 0xac00_0410]),
        leaf(7, 1, [1 << 4 | 1 << 5, 0, 0, 1 << 4]),
        leaf(0xd, 0, [0x2e7, 0x240, 0xa88, 0]),
        leaf(0xd, 1, [0xf, 0x240, 0, 0]),
        leaf(0xd, 2, [0x100, 0x240, 0, 0]),
        leaf(0xd, 5, [0x40, 0x440, 0, 0]),
        leaf(0xd, 6, [0x200, 0x480, 0, 0]),
        leaf(0xd, 7, [0x400, 0x680, 0, 0]),
        leaf(0xd, 9, [8, 0xa80, 0, 0]),
        leaf(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        leaf(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        leaf(0x8000_0000, 0, [0x8000_0021, 0, 0, 0]),
        leaf(0x8000_0001, 0, [0, 0, 0x121, 0x2c10_0800]),
        leaf(0x8000_0007, 0, [0, 0, 0, 1 << 8]),
        leaf(0x8000_0008, 0, [0x392e, 0x0100_0200, 0, 0]),
        leaf(0x8000_0021, 0, [1 << 2, 0, 0, 0]),
    ]
}

/// What a guest is given there.
fn guest(host: &[kvm_cpuid_entry2], id: u32) -> Vec<kvm_cpuid_entry2> {
    let topology = Topology { vcpus: 4, smt: true };
    let supported = CpuId::from_entries(host).unwrap();
    guest_cpuid(&supported, id, topology, Some(2_500_000), TscDeadline::Offered).unwrap().as_slice().to_vec()
}

/// `leaves` with one changed.
fn changed(
    mut leaves: Vec<kvm_cpuid_entry2>,
    function: u32,
    index: u32,
    change: impl FnOnce(&mut kvm_cpuid_entry2),
) -> Vec<kvm_cpuid_entry2> {
    let here = |leaf: &&mut kvm_cpuid_entry2| (leaf.function, leaf.index) == (function, index);
    change(leaves.iter_mut().find(here).unwrap());
    leaves
}

#[track_caller]
fn missing(saved: &[kvm_cpuid_entry2], host: &[kvm_cpuid_entry2]) -> Vec<String> {
    match check_compatible(saved, host, None) {
        Err(CpuMismatch::Missing(missing)) => missing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_goes_on_on_the_host_that_it_was_saved_on_and_on_one_that_has_more() {
    for vendor in [INTEL, AMD] {
        let host = host(vendor);
        for id in 0..4 {
            check_compatible(&guest(&host, id), &host, None).unwrap();
        }
        let more = changed(host.clone(), 7, 0, |leaf| {
            (leaf.ebx, leaf.ecx, leaf.edx) = (u32::MAX, u32::MAX, u32::MAX);
        });
        check_compatible(&guest(&host, 0), &more, None).unwrap();
    }
}

#[test]
fn another_vendor_is_named() {
    let error = check_compatible(&guest(&host(INTEL), 0), &host(AMD), None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("GenuineIntel") && text.contains("AuthenticAMD"), "{text}");
}

#[test]
fn every_feature_that_is_missing_is_named() {
    let full = host(INTEL);
    let less = changed(full.clone(), 7, 0, |leaf| {
        leaf.ebx &= !(1 << 16 | 1 << 5);
        leaf.edx &= !(1 << 4);
    });
    let less = changed(less, 1, 0, |leaf| leaf.ecx &= !(1 << 30));
    let less = changed(less, 0x8000_0001, 0, |leaf| leaf.edx &= !(1 << 26));
    let less = changed(less, 0x8000_0008, 0, |leaf| leaf.ebx = 0);
    let less = changed(less, 0x8000_0007, 0, |leaf| leaf.edx = 0);
    let less = changed(less, 0xd, 1, |leaf| leaf.eax = 1);
    let less: Vec<_> = less.into_iter().filter(|leaf| (leaf.function, leaf.index) != (7, 1)).collect();
    assert_eq!(
        missing(&guest(&full, 0), &less),
        [
            "rdrand",
            "avx2",
            "avx512f",
            "fsrm",
            "avx_vnni",
            "avx512_bf16",
            "avx_vnni_int8",
            "xsavec",
            "xgetbv1",
            "xsaves",
            "pdpe1gb",
            "nonstop_tsc",
            "wbnoinvd",
            "ssbd",
        ]
    );
    check_compatible(&guest(&less, 0), &full, None).unwrap();
}

#[test]
fn a_bit_that_nobody_has_named_yet_counts_too() {
    let host = host(INTEL);
    let saved = changed(guest(&host, 0), 7, 0, |leaf| leaf.edx |= 1 << 1);
    assert_eq!(missing(&saved, &host), ["CPUID 0x7.0 EDX bit 1"]);
}

#[test]
fn a_state_component_that_is_missing_or_elsewhere_is_named() {
    let full = host(INTEL);
    let less = changed(full.clone(), 0xd, 0, |leaf| leaf.eax = 0xe7);
    assert_eq!(missing(&guest(&full, 0), &less), ["XSAVE state component 9 (protection keys)"]);
    let moved = changed(full.clone(), 0xd, 9, |leaf| leaf.ebx = 0x980);
    let named = missing(&guest(&full, 0), &moved);
    assert_eq!(named, ["XSAVE state component 9 (protection keys) where the guest has it"]);
    let unknown = changed(guest(&full, 0), 0xd, 0, |leaf| leaf.edx = 1 << 30);
    assert_eq!(missing(&unknown, &full), ["XSAVE state component 62"]);
}

#[test]
fn addresses_that_are_too_wide_are_named() {
    let host = host(AMD);
    let narrow = changed(host.clone(), 0x8000_0008, 0, |leaf| leaf.eax = 0x302b);
    assert_eq!(missing(&guest(&host, 0), &narrow), ["physical addresses of 46 bits"]);
}

#[test]
fn what_a_template_promised_does_not_keep_a_guest_from_its_own_host() {
    let host = host(INTEL);
    let template = CpuTemplate::from_json(
        r#"{"cpuid_modifiers": [{"leaf": "0x7", "subleaf": "0x0", "flags": 1,
            "modifiers": [{"register": "edx", "bitmap": "0b10"}]}]}"#,
    )
    .unwrap();
    let given = CpuId::from_entries(&guest(&host, 0)).unwrap();
    let saved = template.apply_to_cpuid(&given, &CpuId::from_entries(&host).unwrap()).unwrap();
    check_compatible(saved.as_slice(), &host, Some(&template)).unwrap();
    let other = changed(saved.as_slice().to_vec(), 7, 0, |leaf| leaf.ecx |= 1 << 16);
    let error = check_compatible(&other, &host, Some(&template)).unwrap_err();
    assert_eq!(error, CpuMismatch::Missing(vec!["la57".to_owned()]));
}

#[test]
fn leaves_that_make_no_sense_panic_nowhere() {
    let host = host(INTEL);
    check_compatible(&[], &host, None).unwrap();
    check_compatible(&[], &[], None).unwrap();
    let all: Vec<_> = host.iter().map(|entry| leaf(entry.function, entry.index, [u32::MAX; 4])).collect();
    let error = check_compatible(&all, &host, None).unwrap_err();
    assert!(matches!(error, CpuMismatch::Vendor { .. }), "{error}");
    let error = check_compatible(&all[1..], &[], None).unwrap_err();
    assert!(matches!(error, CpuMismatch::Missing(_)), "{error}");
}
