//! CPU templates: what the guest sees of its CPU is what the template says.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::cpus::leaves;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare};

/// Clears all of a register in leaf 1, and sets and clears some bits of two in 0x80000001. (Leaf 7 is not KVM's to
/// change on every host.)
const TEMPLATE: &str = r#"{
    "kvm_capabilities": ["3", "!4000000000"],
    "cpuid_modifiers": [
        {"leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": [
            {"register": "eax", "bitmap": "0b00000000_00000000_00000000_00000000"}]},
        {"leaf": "0x80000001", "subleaf": "0x0", "flags": 0, "modifiers": [
            {"register": "ebx", "bitmap": "0b1010_0101_xxxxxxxx_xxxxxxxx_xxxxxxxx"},
            {"register": "ecx", "bitmap": "0b00000000_00000000"}]}],
    "msr_modifiers": [{"addr": "0x8b", "bitmap": "0b1010_0101_xxxx"}, {"addr": "0x8b", "bitmap": "0bxxx0"}]}"#;

fn file(content: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("template.json");
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn guest(name: &str, template: &str) -> Rvmm {
    Rvmm::guest(name).args(["--cpu-template", template])
}

/// What the guest `rdmsr` printed.
fn msr(rvmm: Rvmm) -> u64 {
    let ended = rvmm.run();
    ended.assert_complaint(&["the guest reset itself"]);
    assert_eq!(ended.code(), 0, "{ended:#?}");
    let digits = ended.stdout.trim_end().strip_prefix("msr 0000008b: ").unwrap().replace(' ', "");
    u64::from_str_radix(&digits, 16).unwrap()
}

#[test]
fn the_guest_sees_the_templates_bits_and_all_others_unchanged() {
    require_kvm!();
    let (_folder, path) = file(TEMPLATE);
    let before = leaves(Rvmm::guest("cpuid"));
    let mut expected = before.clone();
    expected.get_mut(&(1, 0)).unwrap()[0] = 0;
    let extended = expected.get_mut(&(0x8000_0001, 0)).unwrap();
    extended[1] = 0xa500_0000 | (extended[1] & 0x00ff_ffff);
    extended[2] &= 0xffff_0000;
    let after = leaves(guest("cpuid", path.to_str().unwrap()));
    assert_eq!(after, expected);
    assert_ne!(after, before);
}

#[test]
fn every_vcpu_gets_the_template_and_keeps_its_own_number() {
    require_kvm!();
    // All of leaf 1 EBX and of the topology, as a template that was dumped from a machine has them.
    let zeroes = "0".repeat(32);
    let leaf = |leaf: &str, register: &str| {
        format!(
            r#"{{"leaf": "{leaf}", "subleaf": "0x0", "flags": 0,
                "modifiers": [{{"register": "{register}", "bitmap": "0b{zeroes}"}}]}}"#
        )
    };
    let (_folder, path) =
        file(&format!(r#"{{"cpuid_modifiers": [{}, {}]}}"#, leaf("0x1", "ebx"), leaf("0xb", "edx")));
    let ended = guest("smp", path.to_str().unwrap()).args(["--cpus", "3", "--cmdline", "3"]).run();
    ended.assert_clean();
    for cpu in 0..3 {
        assert!(ended.stdout.contains(&format!("cpu {cpu:08x} {cpu:08x} {cpu:08x}")), "{ended:#?}");
    }
}

#[test]
fn the_guest_reads_the_templates_registers() {
    require_kvm!();
    let (_folder, path) = file(TEMPLATE);
    let before = msr(Rvmm::guest("rdmsr"));
    let after = msr(guest("rdmsr", path.to_str().unwrap()));
    assert_eq!(after, (before & !0xff1) | 0xa50);
}

#[test]
fn a_configuration_file_has_a_template_or_names_its_file() {
    require_kvm!();
    let (folder, path) = file(TEMPLATE);
    for cpu_config in [TEMPLATE.to_owned(), format!("{path:?}")] {
        let config = folder.path().join("vm.json");
        let kernel = bare::path("rdmsr");
        let text = format!(
            r#"{{"boot-source": {{"kernel_image_path": {kernel:?}}}, "cpu-config": {cpu_config},
                "machine-config": {{"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": "None"}}}}"#
        );
        fs::write(&config, text).unwrap();
        assert_eq!(msr(Rvmm::new().arg("--config-file").arg(&config)) & 0xff1, 0xa50);
        // The option wins.
        let (_other, empty) = file("{}");
        let rvmm = Rvmm::new().arg("--config-file").arg(&config).arg("--cpu-template").arg(empty);
        assert_eq!(msr(rvmm), msr(Rvmm::guest("rdmsr")));
    }
}

#[test]
fn the_template_holds_when_the_guest_boots_again() {
    require_kvm!();
    let (_folder, path) = file(TEMPLATE);
    let mut rvmm = guest("rdmsr", path.to_str().unwrap()).args(["--on-reset", "restart"]).launch();
    rvmm.wait_for_times(3, "00000a50\n").signal(libc::SIGTERM);
    rvmm.end();
}

#[test]
fn templates_of_rvmms_own_are_listed_and_run() {
    require_kvm!();
    let ended = Rvmm::new().args(["--cpu-template", "help"]).run();
    ended.assert_clean();
    assert!(ended.stdout.contains("emulated"), "{ended:#?}");
    let ended = guest("hello", "emulated").run();
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "hello, world\n"), "{ended:#?}");
    // A KVM that shows the processor as it is says so.
    assert!(ended.stderr.is_empty() || ended.stderr.contains("leaf 0x7, subleaf 0x0"), "{ended:#?}");
}
