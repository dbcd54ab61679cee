//! Templates as users write them, and what becomes of a made-up CPU.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::*;
use crate::cpu::CpuError;

const EXAMPLE: &str = r#"{
    "kvm_capabilities": ["191", "!56"],
    "cpuid_modifiers": [
        {"leaf": "0x80000001", "subleaf": "0b0", "flags": 0, "modifiers": [
            {"register": "ecx", "bitmap": "0bxx1_0"}, {"register": "edx", "bitmap": "1"}]}],
    "msr_modifiers": [{"addr": "0x8b", "bitmap": "0bx_01"}, {"addr": "0x10a", "bitmap": "0b1xxxxxxx"}]}"#;

fn template(json: &str) -> CpuTemplate {
    CpuTemplate::from_json(json).unwrap()
}

fn complaint(json: &str) -> String {
    CpuTemplate::from_json(json).unwrap_err().to_string()
}

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
}

/// What a vCPU with `guest` has when KVM supports `guest` and `more`, by leaf.
fn applied(
    template: &CpuTemplate,
    guest: &[kvm_cpuid_entry2],
    more: &[kvm_cpuid_entry2],
) -> Result<Vec<kvm_cpuid_entry2>, CpuError> {
    let supported = CpuId::from_entries(&[guest, more].concat()).unwrap();
    let guest = CpuId::from_entries(guest).unwrap();
    Ok(template.apply_to_cpuid(&guest, &supported)?.as_slice().to_vec())
}

/// A template that changes one register of a leaf.
fn one(leaf: &str, register: &str, bitmap: &str) -> CpuTemplate {
    template(&format!(
        r#"{{"cpuid_modifiers": [{{"leaf": "{leaf}", "subleaf": "0x0", "flags": 0,
            "modifiers": [{{"register": "{register}", "bitmap": "{bitmap}"}}]}}]}}"#
    ))
}

#[test]
fn an_empty_template_changes_nothing() {
    let empty = template("{}");
    assert_eq!(empty, CpuTemplate::default());
    let cpu = [leaf(0, 0, [7, 1, 2, 3]), leaf(7, 0, [u32::MAX; 4])];
    assert_eq!(applied(&empty, &cpu, &[]).unwrap(), cpu);
    assert_eq!((empty.msr_indices(), empty.msr_value(0x8b, 5)), (vec![], 5));
}

#[test]
fn a_template_survives_a_round_trip_through_json() {
    let first = template(EXAMPLE);
    let text = serde_json::to_string(&first).unwrap();
    assert_eq!(template(&text), first);
    for part in [
        r#"["191","!56"]"#,
        r#""leaf":"0x80000001","subleaf":"0x0","flags":0"#,
        r#""register":"ecx","bitmap":"0bxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx10""#,
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn bits_are_set_cleared_and_left_and_the_last_modifier_wins() {
    let changed = applied(&template(EXAMPLE), &[leaf(0x8000_0001, 0, [1, 2, 0b1101, 0xf0])], &[]).unwrap();
    assert_eq!(changed, [leaf(0x8000_0001, 0, [1, 2, 0b1110, 0xf1])]);

    let twice = template(&EXAMPLE.replace(r#""edx", "bitmap": "1""#, r#""ecx", "bitmap": "0b0x""#));
    let changed = applied(&twice, &[leaf(0x8000_0001, 0, [0, 0, 0b1101, 0])], &[]).unwrap();
    assert_eq!(changed[0].ecx, 0b1100);
}

#[test]
fn registers_are_changed_bit_by_bit() {
    let template = template(EXAMPLE);
    assert_eq!(template.msr_indices(), [0x8b, 0x10a]);
    assert_eq!(template.msr_value(0x8b, u64::MAX), u64::MAX - 2);
    assert_eq!(template.msr_value(0x10a, 0), 0x80);
    assert_eq!(template.msr_value(0x10, 9), 9, "not in the template");

    let twice =
        r#"{"msr_modifiers": [{"addr": "0x10", "bitmap": "0b11"}, {"addr": "0x10", "bitmap": "0b0x"}]}"#;
    let twice = CpuTemplate::from_json(twice).unwrap();
    assert_eq!((twice.msr_indices(), twice.msr_value(0x10, 4)), (vec![0x10], 5));
}

#[test]
fn a_whole_register_can_be_written_down() {
    let ones = "1".repeat(64);
    let all = template(&format!(r#"{{"msr_modifiers": [{{"addr": "0x10", "bitmap": "0b{ones}"}}]}}"#));
    assert_eq!(all.msr_value(0x10, 0), u64::MAX);
    assert_eq!(all, template(&serde_json::to_string(&all).unwrap()));
}

#[test]
fn a_leaf_that_rvmm_leaves_out_begins_with_zeroes() {
    let changed = applied(&one("0xa", "eax", "0b1x"), &[], &[leaf(0xa, 0, [0xff; 4])]).unwrap();
    assert_eq!(changed, [leaf(0xa, 0, [2, 0, 0, 0])]);
}

#[test]
fn a_leaf_that_kvm_does_not_have_is_an_error() {
    let error = applied(&one("0x8", "eax", "1"), &[leaf(7, 0, [1; 4])], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the CPU template changes CPUID leaf 0x8, subleaf 0x0, which KVM on this host does not have: take it out"
    );
    // Nor is a subleaf of one that it has.
    assert!(applied(&one("0x7", "eax", "1"), &[leaf(7, 1, [1; 4])], &[]).is_err());
}

#[test]
fn what_tells_vcpus_apart_stays() {
    let zeroes = "0".repeat(32);
    for (function, register, before, after) in [
        (0x1, "ebx", [0, 0x0302_0800, 0, 0], [0, 0x0302_0000, 0, 0]),
        (0x1, "edx", [0, 0, 0, 1 << 28 | 1], [0, 0, 0, 1 << 28]),
        (0xb, "edx", [1, 2, 3, 4], [1, 2, 3, 4]),
        (0x8000_001e, "eax", [1, 2, 3, 4], [1, 2, 3, 4]),
        (0x8000_0008, "ecx", [0, 0, 0x0000_7103, 0], [0, 0, 0x0000_7003, 0]),
        (0x4, "eax", [0xfc1f_c163, 0, 0, 0], [0xfc1f_c000, 0, 0, 0]),
    ] {
        let changed =
            applied(&one(&format!("{function:#x}"), register, &zeroes), &[leaf(function, 0, before)], &[]);
        assert_eq!(changed.unwrap(), [leaf(function, 0, after)], "{function:#x}");
    }
}

#[test]
fn flags_are_the_templates_but_whether_a_subleaf_counts_is_kvms() {
    let flags = |given: u32, kvms: u32| {
        let mut template = one("0x7", "eax", "x");
        template.cpuid_modifiers[0].flags = given;
        let mut kvm = leaf(7, 0, [5; 4]);
        kvm.flags = kvms;
        let left_out = applied(&template, &[], &[kvm]).unwrap()[0].flags;
        let changed = applied(&template, &[kvm], &[]).unwrap()[0].flags;
        assert_eq!(changed, left_out);
        changed
    };
    assert_eq!([flags(0, 1), flags(1, 0), flags(6, 1), flags(2, 0)], [1, 0, 7, 2]);
}

#[test]
fn a_leaf_that_kvm_shows_otherwise_is_found() {
    let overridden = |template: &CpuTemplate, wanted, shown| {
        let cpu = |entry| CpuId::from_entries(&[entry]).unwrap();
        template.overridden(&cpu(wanted), &cpu(shown))
    };
    let ebx = one("0x7", "ebx", "00");
    let wanted = leaf(7, 0, [1, 0b1100, 0, 0]);
    assert_eq!(overridden(&ebx, wanted, wanted), []);
    assert_eq!(overridden(&ebx, wanted, leaf(7, 0, [1, 0b1110, 0, 0])), [(7, 0)]);
    assert_eq!(
        overridden(&ebx, wanted, leaf(7, 0, [2, 0b0000, 9, 0])),
        [],
        "bits that are not the template's"
    );
    // The guest turns it on itself.
    let osxsave = one("0x1", "ecx", &format!("0{}", "x".repeat(27)));
    assert_eq!(overridden(&osxsave, leaf(1, 0, [0; 4]), leaf(1, 0, [0, 0, 1 << 27, 0])), []);
}

#[test]
fn more_leaves_than_kvm_takes_are_an_error() {
    let full: Vec<_> = (0..256).map(|function| leaf(0x8000_1000 + function, 0, [1; 4])).collect();
    let supported = CpuId::from_entries(&[leaf(5, 0, [1; 4])]).unwrap();
    let result = one("0x5", "eax", "1").apply_to_cpuid(&CpuId::from_entries(&full).unwrap(), &supported);
    assert_eq!(result.unwrap_err().to_string(), "the vCPU has 257 CPUID leaves, more than KVM takes (256)");
}

#[test]
fn mistakes_name_the_value_and_the_mend() {
    let leaf = |leaf: &str, register: &str, bitmap: &str| {
        format!(
            r#"{{"cpuid_modifiers": [{{"leaf": {leaf}, "subleaf": "0x0", "flags": 0,
                "modifiers": [{{"register": {register}, "bitmap": {bitmap}}}]}}]}}"#
        )
    };
    for (json, words) in [
        (leaf(r#""12""#, r#""eax""#, r#""x""#), &["\"12\"", "0x"][..]),
        (leaf(r#""0x+1""#, r#""eax""#, r#""x""#), &["\"0x+1\"", "hexadecimal"]),
        (leaf(r#""0x100000000""#, r#""eax""#, r#""x""#), &["\"0x100000000\"", "32 bits"]),
        (leaf("1", r#""eax""#, r#""x""#), &["integer `1`", "string"]),
        (leaf(r#""0x1""#, r#""rax""#, r#""x""#), &["`rax`", "`eax`"]),
        (leaf(r#""0x1""#, r#""eax""#, r#""0bx2""#), &["\"0bx2\"", "'2'", "0 or 1"]),
        (leaf(r#""0x1""#, r#""eax""#, &format!("{:?}", "x".repeat(33))), &["32 bits"]),
        (r#"{"kvm_capabilities": ["KVM_CAP_XSAVE"]}"#.to_owned(), &["KVM_CAP_XSAVE", "number"]),
        (r#"{"kvm_capabilities": ["!-1"]}"#.to_owned(), &["!-1", "number"]),
        (r#"{"msr_modifiers": [{"addr": "0x10"}]}"#.to_owned(), &["bitmap"]),
        (r#"{"msr_modifiers": [{"addr": "0x10", "bitmap": "x", "mask": 1}]}"#.to_owned(), &["`mask`"]),
        (r#"{"cpuid": []}"#.to_owned(), &["`cpuid`", "`cpuid_modifiers`"]),
        ("5".to_owned(), &["integer `5`", "line 1"]),
    ] {
        let said = complaint(&json);
        assert!(words.iter().all(|word| said.contains(word)), "{json}: {said}");
    }
}

#[test]
fn a_long_mistake_is_quoted_in_part() {
    let said = complaint(&format!(r#"{{"kvm_capabilities": ["{}"]}}"#, "ä".repeat(100_000)));
    assert!(said.len() < 400 && said.contains("ää…"), "{said}");
}

#[test]
fn a_template_has_at_most_255_modifiers_of_a_kind() {
    let many = |count| format!(r#"{{"kvm_capabilities": [{}]}}"#, vec!["\"1\""; count].join(", "));
    template(&many(MAX_MODIFIERS));
    assert_eq!(
        complaint(&many(MAX_MODIFIERS + 1)),
        "the CPU template has 256 KVM capabilities: 255 is the most"
    );
    let registers = vec![r#"{"register": "eax", "bitmap": "x"}"#; 256].join(", ");
    let said = complaint(&format!(
        r#"{{"cpuid_modifiers": [{{"leaf": "0x0", "subleaf": "0x0", "flags": 0, "modifiers": [{registers}]}}]}}"#
    ));
    assert!(said.contains("256 modifiers of one CPUID leaf"), "{said}");
}

#[test]
fn a_configuration_has_a_template_or_its_name() {
    let config = |json: &str| serde_json::from_str::<Option<CpuConfig>>(json);
    assert_eq!(config("null").unwrap(), None);
    let written = config(EXAMPLE).unwrap().unwrap();
    assert_eq!(*written.template().unwrap(), template(EXAMPLE));
    let named = config("\"emulated\"").unwrap().unwrap();
    assert_eq!(serde_json::to_string(&named).unwrap(), "\"emulated\"");
    assert_ne!(*named.template().unwrap(), CpuTemplate::default());
    let said = config("[]").unwrap_err().to_string();
    assert!(said.contains("expected a CPU template, or the name of one"), "{said}");
    let said = config(r#"{"leaf": 1}"#).unwrap_err().to_string();
    assert!(said.contains("unknown field `leaf`, expected one of"), "{said}");
}

#[test]
fn a_name_is_a_file_unless_rvmm_has_a_template_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.json");
    let named = || CpuConfig::Named(path.to_str().unwrap().to_owned());
    let said = named().template().unwrap_err();
    assert!(said.to_string().contains("t.json"), "{said}");
    std::fs::write(&path, EXAMPLE).unwrap();
    assert_eq!(*named().template().unwrap(), template(EXAMPLE));
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    assert!(matches!(named().template(), Err(TemplateFileError::Read { .. })));

    let said = CpuConfig::Named("T2CL".to_owned()).template().unwrap_err().to_string();
    assert!(said.contains("\"T2CL\"") && said.contains("emulated"), "{said}");
}

#[test]
fn templates_of_rvmms_own_are_valid_and_have_names_of_their_own() {
    for builtin in builtins() {
        (builtin.template)().validate().unwrap();
        assert_eq!(builtins().iter().filter(|other| other.name == builtin.name).count(), 1);
    }
}
