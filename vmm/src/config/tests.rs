//! What is a configuration, and what is not.

use super::*;

fn config(json: &str) -> Result<VmConfig, JsonError> {
    VmConfig::from_json(json)
}

const SMALL: &str = r#"{"boot-source": {"kernel_image_path": "vmlinux"}}"#;

fn small() -> VmConfig {
    config(SMALL).unwrap()
}

#[test]
fn a_kernel_is_enough_and_the_defaults_are_one_vcpu_and_128_mib() {
    let config = small();
    config.validate().unwrap();
    assert_eq!(
        config.machine_config,
        MachineConfig { vcpu_count: 1, mem_size_mib: 128, ..Default::default() }
    );
    assert_eq!(config.cmdline(), config.default_cmdline());
}

#[test]
fn the_configuration_survives_a_round_trip_through_json() {
    let text = r#"{"boot-source": {"kernel_image_path": "k", "boot_args": "a", "initrd_path": "i"},
        "drives": [{"drive_id": "d", "is_root_device": true, "path_on_host": "p", "is_read_only": true}],
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 256, "huge_pages": "2M"},
        "network-interfaces": [], "vsock": {"guest_cid": 3, "uds_path": "v"}, "entropy": {}}"#;
    let first = config(text).unwrap();
    let second = config(&serde_json::to_string(&first).unwrap()).unwrap();
    assert_eq!(first, second);
}

#[test]
fn unknown_and_unsupported_keys_are_named() {
    let unknown = config(r#"{"boot-source": {"kernel_image_path": "k", "colour": 1}}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `colour`"), "{unknown}");
    for key in NOT_SUPPORTED {
        let unsupported = config(&format!(r#"{{"{key}": [{{"id": "p"}}]}}"#)).unwrap_err();
        assert!(
            unsupported.to_string().contains(&format!("`{key}`, which is not supported yet")),
            "{unsupported}"
        );
    }
}

#[test]
fn a_root_drive_names_itself_on_the_command_line_unless_the_user_did() {
    let mut vm = config(
        r#"{"boot-source": {"kernel_image_path": "k", "boot_args": "quiet"}, "drives": [
        {"drive_id": "a", "is_root_device": false, "path_on_host": "a"},
        {"drive_id": "b", "is_root_device": true, "path_on_host": "b", "is_read_only": true}]}"#,
    )
    .unwrap();
    assert_eq!(vm.cmdline(), "quiet root=/dev/vda ro");
    assert_eq!(vm.drives_in_order().map(|drive| drive.drive_id.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    vm.boot_source.as_mut().unwrap().boot_args = Some("root=/dev/vdb1".to_owned());
    assert_eq!(vm.cmdline(), "root=/dev/vdb1");
}

#[test]
fn sizes_out_of_range_are_refused_with_the_value() {
    for (count, mib, part) in [
        (0, 128, "0 vCPUs"),
        (33, 128, "33 vCPUs"),
        (1, 0, "0 MiB"),
        (1, 3, "3 MiB"),
        (1, u64::MAX, "this host has"),
    ] {
        let mut vm = small();
        vm.machine_config.vcpu_count = count;
        vm.machine_config.mem_size_mib = mib;
        let error = vm.validate().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_virtio_console_is_behind_the_serial_one_on_the_default_command_line() {
    let mut vm = config(r#"{"boot-source": {"kernel_image_path": "k"}, "console": {}}"#).unwrap();
    vm.validate().unwrap();
    assert!(vm.cmdline().starts_with("console=ttyS0 console=hvc0 quiet "), "{}", vm.cmdline());
    vm.boot_source.as_mut().unwrap().boot_args = Some("console=hvc0".to_owned());
    assert_eq!(vm.cmdline(), "console=hvc0");
    assert!(!serde_json::to_string(&small()).unwrap().contains("console"));
}

#[test]
fn a_balloon_that_cannot_be_is_refused_with_both_sizes() {
    let mut vm = small();
    let balloon = BalloonConfig { amount_mib: 128, ..BalloonConfig::default() };
    vm.balloon = Some(balloon.clone());
    vm.validate().unwrap();
    vm.balloon = Some(BalloonConfig { amount_mib: 129, ..balloon.clone() });
    let error = vm.validate().unwrap_err().to_string();
    assert!(error.contains("129 MiB") && error.contains("128 MiB"), "{error}");
    vm.balloon = Some(BalloonConfig { free_page_hinting: true, ..balloon.clone() });
    assert!(vm.validate().unwrap_err().to_string().contains("free_page_hinting"));
    vm.balloon = Some(balloon);
    vm.machine_config.huge_pages = HugePages::Hugetlb2M;
    assert_eq!(vm.validate(), Err(ConfigError::BalloonOfHugePages));
}

#[test]
fn two_drives_of_one_name_and_two_roots_are_refused() {
    let drive = |id: &str, root: bool| -> BlockConfig {
        serde_json::from_value(
            serde_json::json!({"drive_id": id, "is_root_device": root, "path_on_host": "x"}),
        )
        .unwrap()
    };
    let mut vm = small();
    vm.drives = vec![drive("a", false), drive("a", false)];
    assert_eq!(vm.validate(), Err(ConfigError::DuplicateDrive { id: "a".to_owned() }));
    vm.drives = vec![drive("a", true), drive("b", true)];
    let two = ConfigError::TwoRootDevices { first: "a".to_owned(), second: "b".to_owned() };
    assert_eq!(vm.validate(), Err(two));
    vm.drives = (0..20).map(|n| drive(&n.to_string(), false)).collect();
    assert_eq!(vm.validate(), Ok(()));
    vm.machine_config.transport = Some(Transport::Mmio);
    assert_eq!(vm.validate(), Err(ConfigError::TooManyDevices { count: 20, max: 18 }));
}

#[test]
fn two_drives_share_a_file_only_when_neither_writes() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, [0; 512]).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    let vm = |path: &Path, read_only: bool| {
        let drive = |id: &str, path: &Path, read_only: bool| serde_json::json!({"drive_id": id, "is_root_device": false, "path_on_host": path, "is_read_only": read_only});
        let drives = [
            drive("a", &image, true),
            drive("other", Path::new("/no/such"), false),
            drive("b", path, read_only),
        ];
        let mut vm = small();
        vm.drives = drives.into_iter().map(|drive| serde_json::from_value(drive).unwrap()).collect();
        vm.validate()
    };
    assert_eq!(vm(&link, true), Ok(()));
    for path in [&image, &link] {
        let error = vm(path, false).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("drives \"a\" and \"b\" both have {}: ", path.display())),
            "{error}"
        );
    }
}

#[test]
fn devices_are_not_where_the_kernel_is_told_not_to_look() {
    let of = |cmdline: &str, transport| {
        let mut vm = VmConfig::default();
        let json = serde_json::json!({"kernel_image_path": "k", "boot_args": cmdline});
        vm.boot_source = Some(serde_json::from_value(json).unwrap());
        vm.machine_config.transport = transport;
        vm.transport()
    };
    assert_eq!(of("console=ttyS0 reboot=k panic=1 pci=off", None), Transport::Mmio);
    assert_eq!(of("console=ttyS0 pci=offline", None), Transport::Pci);
    assert_eq!(of("pci=off", Some(Transport::Pci)), Transport::Pci);
    assert_eq!(VmConfig::default().transport(), Transport::Pci);
}

#[test]
fn a_static_cpu_template_is_refused_by_name() {
    let machine = |template: &str| {
        config(&format!(
            r#"{{"machine-config": {{"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": {template}}}}}"#
        ))
    };
    for accepted in ["null", "\"None\""] {
        machine(accepted).unwrap();
    }
    for refused in ["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "t9"] {
        let said = machine(&format!("{refused:?}")).unwrap_err().to_string();
        assert!(said.contains(&format!("{refused:?}")) && said.contains("cpu-config"), "{said}");
    }
}

#[test]
fn a_cpu_template_is_a_part_of_the_configuration() {
    let text = r#"{"boot-source": {"kernel_image_path": "k"}, "cpu-config": {"kvm_capabilities": ["1"]}}"#;
    let first = config(text).unwrap();
    assert_eq!(config(&serde_json::to_string(&first).unwrap()).unwrap(), first);
    let long = text.replace("\"1\"", &vec!["\"1\""; 256].join(","));
    assert!(config(&long).unwrap().validate().unwrap_err().to_string().contains("256 KVM capabilities"));
}

fn refusal(text: &str) -> String {
    VmConfig::from_json(text).unwrap_err().to_string()
}

#[test]
fn an_error_names_the_field_and_its_place() {
    let error = refusal(r#"{"machine-config": {"vcpu_count": "1", "mem_size_mib": 64}}"#);
    assert_eq!(
        error,
        "machine-config.vcpu_count: invalid type: string \"1\", expected u32 at line 1 column 37"
    );
    let error = refusal("{\"drives\": [\n{\"drive_id\": \"a\", \"is_root_device\": 0}]}");
    assert!(error.starts_with("drives[0].is_root_device: ") && error.contains("at line 2 "), "{error}");
    assert_eq!(refusal("{} x"), "trailing characters at line 1 column 4");
    assert_eq!(refusal(""), "EOF while parsing a value at line 1 column 0");
}

#[test]
fn an_array_is_no_object_wherever_it_stands() {
    let kernel = r#""boot-source": {"kernel_image_path": "k"}"#;
    for (field, text) in [
        ("", r#"[{"kernel_image_path": "k"}]"#.to_owned()),
        ("", "[]".to_owned()),
        ("boot-source: ", r#"{"boot-source": ["k"]}"#.to_owned()),
        ("entropy: ", format!(r#"{{{kernel}, "entropy": []}}"#)),
        ("entropy.rate_limiter: ", format!(r#"{{{kernel}, "entropy": {{"rate_limiter": []}}}}"#)),
        ("drives[0]: ", format!(r#"{{{kernel}, "drives": [["a", true, "b"]]}}"#)),
        (
            "cpu-config.msr_modifiers[0]: ",
            r#"{"cpu-config": {"msr_modifiers": [["0x10", "0b1"]]}}"#.to_owned(),
        ),
    ] {
        let error = refusal(&text);
        let expected = format!("{field}invalid type: an array, expected an object");
        assert!(error.starts_with(&expected), "{text}: {error}");
    }
    let error = CpuTemplate::from_json("[]").unwrap_err().to_string();
    assert!(error.contains("expected an object"), "{error}");
}
