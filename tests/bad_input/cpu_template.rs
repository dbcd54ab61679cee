//! CPU templates that cannot be.

use std::fs;

use super::{config_file, hello, refused};
use crate::support::kvm::require_kvm;

/// rvmm with this as its template is refused, and names the file and `words`.
#[track_caller]
fn refused_template(content: &str, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("template.json");
    fs::write(&path, content).unwrap();
    refused(hello().arg("--cpu-template").arg(&path), 1, words);
}

fn leaf(leaf: &str, register: &str, bitmap: &str) -> String {
    format!(
        r#"{{"cpuid_modifiers": [{{"leaf": "{leaf}", "subleaf": "0x0", "flags": 0,
            "modifiers": [{{"register": "{register}", "bitmap": "{bitmap}"}}]}}]}}"#
    )
}

#[test]
fn a_template_that_is_not_there_is_refused_with_the_names_that_are() {
    refused(hello().args(["--cpu-template", "T2CL"]), 1, &["\"T2CL\"", "emulated"]);
    refused(hello().args(["--cpu-template", "/no/such/t.json"]), 1, &["/no/such/t.json", "No such file"]);
    refused(hello().args(["--cpu-template", "/"]), 1, &["\"/\"", "directory"]);
    refused(hello().args(["--cpu-template", "/dev/zero"]), 1, &["/dev/zero", "1048576 bytes"]);
}

#[test]
fn a_template_that_is_none_is_refused_with_its_place() {
    let named = "template.json";
    refused_template("", &[named, "line 1"]);
    refused_template(r#"{"cpuid": []}"#, &[named, "`cpuid`", "`cpuid_modifiers`"]);
    refused_template(&leaf("7", "eax", "x"), &[named, "\"7\"", "0x"]);
    refused_template(&leaf("0x7", "rax", "x"), &[named, "`rax`", "`eax`"]);
    refused_template(&leaf("0x7", "eax", "0b012"), &[named, "\"0b012\"", "'2'"]);
    refused_template(&leaf("0x7", "eax", &"x".repeat(33)), &[named, "32 bits"]);
    let many = vec!["\"1\""; 256].join(",");
    refused_template(&format!(r#"{{"kvm_capabilities": [{many}]}}"#), &["256 KVM capabilities", "255"]);
}

#[test]
fn a_template_that_this_host_cannot_keep_to_is_refused() {
    require_kvm!();
    refused_template(&leaf("0x12345", "eax", "x"), &["leaf 0x12345", "take it out"]);
    refused_template(
        r#"{"msr_modifiers": [{"addr": "0xdeadbeef", "bitmap": "1"}]}"#,
        &["MSR 0xdeadbeef", "take it out"],
    );
    // IA32_EFER: bit 1 is reserved.
    refused_template(
        r#"{"msr_modifiers": [{"addr": "0xc0000080", "bitmap": "0b1x"}]}"#,
        &["MSR 0xc0000080", "refuses"],
    );
    refused_template(r#"{"kvm_capabilities": ["3999999999"]}"#, &["KVM capability 3999999999"]);
}

#[test]
fn a_bad_template_in_a_configuration_file_is_refused() {
    let machine = |machine: &str, cpu: &str| {
        config_file(&format!(
            r#"{{"boot-source": {{"kernel_image_path": "k"}}, "cpu-config": {cpu},
                "machine-config": {{"vcpu_count": 1, "mem_size_mib": 64{machine}}}}}"#
        ))
    };
    let (_folder, rvmm) = machine(r#", "cpu_template": "T2S""#, "null");
    refused(rvmm, 1, &["\"T2S\"", "cpu-config"]);
    let (_folder, rvmm) = machine("", "[]");
    refused(rvmm, 1, &["CPU template", "vm.json"]);
    let (_folder, rvmm) = machine("", r#"{"msr_modifiers": [{"addr": "0x10"}]}"#);
    refused(rvmm, 1, &["`bitmap`", "vm.json"]);
    let (_folder, rvmm) = machine("", "\"/no/such/t.json\"");
    refused(rvmm, 1, &["/no/such/t.json"]);
}
