//! What a guest finds when it starts.

use std::fs;

use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Ended, Rvmm, bare};

/// The lines of `ended`'s stdout that begin with `key`, without it.
fn lines<'a>(ended: &'a Ended, key: &str) -> Vec<&'a str> {
    ended.stdout.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).collect()
}

/// The ranges of the memory map that `pvh-info` printed: first address, length, type.
fn memory_map(ended: &Ended) -> Vec<(u64, u64, u64)> {
    let range = |line: &str| {
        let words: Vec<u64> =
            line.split_whitespace().map(|word| u64::from_str_radix(word, 16).unwrap()).collect();
        (words[0] << 32 | words[1], words[2] << 32 | words[3], words[4])
    };
    lines(ended, "memory").into_iter().map(range).collect()
}

fn ram(ended: &Ended) -> u64 {
    memory_map(ended).iter().filter(|(_, _, kind)| *kind == 1).map(|(_, length, _)| length).sum()
}

#[test]
fn a_guest_prints_and_powers_off() {
    require_kvm!();
    Rvmm::guest("hello").run().assert_clean().assert_stdout("hello, world\n");
}

#[test]
fn pvh_start_info_describes_the_machine() {
    require_kvm!();
    let ended = Rvmm::guest("pvh-info").run();
    ended.assert_clean();
    assert_eq!(lines(&ended, "magic"), ["336ec578"]);
    assert_eq!(lines(&ended, "rsdp"), ["RSD PTR "]);
    assert_eq!(lines(&ended, "initrd"), [""; 0]);
    let map = memory_map(&ended);
    let top = map.iter().filter(|range| range.2 == 1).map(|range| range.0 + range.1).max();
    assert_eq!(top, Some(128 << 20), "{map:x?}");
    // What lies between conventional memory and 1 MiB is not RAM.
    let lost = (128 << 20) - ram(&ended);
    assert!((0x6_0000..=0x6_1000).contains(&lost), "{lost:#x}: {map:x?}");
    let mut sorted = map.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "ranges overlap: {map:x?}");
}

#[test]
fn the_command_line_is_the_default_replaced_or_added_to() {
    require_kvm!();
    let cmdline = |args: &[&str]| {
        let ended = Rvmm::guest("pvh-info").args(args).run();
        ended.assert_clean();
        lines(&ended, "cmdline")[0].to_owned()
    };
    let default = cmdline(&[]);
    assert!(default.split(' ').any(|word| word == "console=ttyS0"), "{default}");
    assert_eq!(cmdline(&["--append", "one two=2"]), format!("{default} one two=2"));
    assert_eq!(cmdline(&["--append", "one -- two"]), format!("{default} one -- two"));
    assert_eq!(cmdline(&["--cmdline", "one -- two"]), "one -- two");
    assert_eq!(cmdline(&["--cmdline", ""]), "");
}

#[test]
fn a_root_file_system_is_named_on_the_command_line() {
    require_kvm!();
    let disk = Disk::new(8, "root");
    for (options, root) in [("", "root=/dev/vda rw"), (",readonly", "root=/dev/vda ro")] {
        let rootfs = format!("{}{options}", disk.path().display());
        for (given, expected) in [
            ("quiet", format!("quiet {root}")),
            // What is behind `--` belongs to init, and what is in quotes to another parameter.
            ("quiet -- root=x", format!("quiet {root} -- root=x")),
            ("a=\"root=x b\"", format!("a=\"root=x b\" {root}")),
            ("root=/dev/vdb", "root=/dev/vdb".to_owned()),
        ] {
            let ended = Rvmm::guest("pvh-info").args(["--cmdline", given, "--rootfs", &rootfs]).run();
            ended.assert_clean();
            assert_eq!(lines(&ended, "cmdline"), [expected]);
        }
    }
}

#[test]
fn an_initrd_is_in_memory_as_it_is_in_its_file() {
    require_kvm!();
    let initrd = Disk::with_content(b"initrd!!and more");
    let ended = Rvmm::guest("pvh-info").arg("--initrd").arg(initrd.path()).run();
    ended.assert_clean();
    assert_eq!(lines(&ended, "initrd"), ["00000010 initrd!!"]);
}

#[test]
fn all_of_the_memory_asked_for_is_there() {
    require_kvm!();
    // Below the gap for devices, up to it, and on both sides of it.
    for (size, bytes) in [("64M", 64 << 20), ("3G", 3 << 30), ("5G", 5 << 30)] {
        let map = Rvmm::guest("pvh-info").args(["--memory", size]).run();
        map.assert_clean();
        let missing = bytes - ram(&map);
        assert!((0x6_0000..=0x6_1000).contains(&missing), "{size}: {missing:#x}");

        let touched = Rvmm::guest("memory").args(["--memory", size]).run();
        touched.assert_clean();
        let ranges = lines(&touched, "ram");
        assert_eq!(ranges.len(), if size == "5G" { 3 } else { 2 }, "{touched:#?}");
        assert!(ranges.iter().all(|line| line.ends_with(" ok")), "{touched:#?}");
        assert!(!touched.stdout.contains("BAD") && touched.stdout.ends_with("end\n"), "{touched:#?}");
    }
}

#[test]
fn the_local_apic_timer_interrupts_a_halted_guest() {
    require_kvm!();
    Rvmm::guest("irq-timer").run().assert_clean().assert_stdout("ticks 00000001 00000002 00000003\n");
}

#[test]
fn where_no_device_is_reads_are_all_ones_and_writes_do_nothing() {
    require_kvm!();
    let ended = Rvmm::guest("unclaimed-io").run();
    ended.assert_clean();
    ended.assert_stdout("ports 000000ff 0000ffff ffffffff\nmemory 000000ff 0000ffff ffffffff\n");
}

#[test]
fn a_configuration_file_says_the_same_as_options_and_options_win() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vm.json");
    let config = serde_json::json!({
        "boot-source": {"kernel_image_path": bare::path("pvh-info"), "boot_args": "from the file"},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 64},
    });
    fs::write(&file, config.to_string()).unwrap();
    let run = |args: &[&str]| Rvmm::new().arg("--config-file").arg(&file).args(args).run();

    let ended = run(&[]);
    ended.assert_clean();
    assert_eq!(lines(&ended, "cmdline"), ["from the file"]);
    assert_eq!(ram(&ended) >> 20, 63);

    let ended = run(&["--append", "and more", "--memory", "96M"]);
    ended.assert_clean();
    assert_eq!(lines(&ended, "cmdline"), ["from the file and more"]);
    assert_eq!(ram(&ended) >> 20, 95);
}
