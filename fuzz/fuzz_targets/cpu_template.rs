//! A CPU template: any text, and a CPU that is made up from the leaves that the template names.
//!
//! Holds: no panic; what was read survives a round trip through JSON; a template changes the leaves that it names and no
//! other, none of what tells vCPUs apart, and applied twice comes to the same as once.
#![no_main]

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use libfuzzer_sys::fuzz_target;
use vmm::cpu::template::{CpuTemplate, kept_bits};

fuzz_target!(|text: &str| {
    let Ok(template) = CpuTemplate::from_json(text) else { return };
    let written = serde_json::to_string(&template).unwrap();
    assert_eq!(CpuTemplate::from_json(&written).unwrap(), template);

    for index in template.msr_indices() {
        let once = template.msr_value(index, 0x0123_4567_89ab_cdef);
        assert_eq!(template.msr_value(index, once), once);
    }

    let named = template.cpuid_modifiers.iter().map(|modifier| leaf(modifier.leaf, modifier.subleaf));
    let leaves: Vec<_> = named.chain([leaf(0xfeed, 0)]).collect();
    let guest = CpuId::from_entries(&leaves).unwrap();
    let Ok(changed) = template.apply_to_cpuid(&guest, &guest) else { return };
    assert_eq!(template.apply_to_cpuid(&changed, &guest).unwrap().as_slice(), changed.as_slice());
    for (before, after) in leaves.iter().zip(changed.as_slice()) {
        let names = |entry: &kvm_cpuid_entry2| {
            let here = (entry.function, entry.index);
            template.cpuid_modifiers.iter().any(|leaf| (leaf.leaf, leaf.subleaf) == here)
        };
        assert!(names(before) || before == after, "{before:?} {after:?}");
        let registers = |entry: &kvm_cpuid_entry2| [entry.eax, entry.ebx, entry.ecx, entry.edx];
        for ((before, after), kept) in
            registers(before).into_iter().zip(registers(after)).zip(kept_bits(before.function))
        {
            assert_eq!(before & kept, after & kept);
        }
    }
});

fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
    let (eax, ebx, ecx, edx) = (0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210);
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
}
