use super::*;

fn sight(files: &[(&str, &str)]) -> Sight {
    Sight {
        release: "6.12.1".to_owned(),
        version: "#1 SMP".to_owned(),
        files: files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect(),
        ..Sight::default()
    }
}

fn host() -> Sight {
    Sight {
        host_name: "fjord".to_owned(),
        booted: 1_700_000_000.0,
        processes: vec!["1 12 systemd".to_owned(), "400 900 rvmm-bench".to_owned()],
        interfaces: vec!["eth0 02:00:00:00:00:01".to_owned()],
        log: Some("/dev/kmsg: Linux version 6.12.1".to_owned()),
        ..sight(&[
            ("/proc/sys/kernel/random/boot_id", "6c9f0b1e-2f4e-4e0c-9a39-0d7cf2b2a001"),
            ("/proc/loadavg", "0.10 0.50 2.00 1/100 900"),
            ("/proc/cpuinfo", "processor\t: 0\nmodel name\t: A Fine Processor"),
            (
                "/proc/self/mountinfo",
                "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n23 22 0:5 / /dev rw - devtmpfs udev rw",
            ),
            ("/proc/partitions", "major minor  #blocks  name\n\n 254        1   41942016 vda1"),
        ])
    }
}

fn leaking(host: &Sight, seen: &Sight) -> Vec<String> {
    let shared = host_kernel(host, seen).yes;
    compare(host, seen, shared).into_iter().filter(|leak| leak.leaks).map(|leak| leak.fact).collect()
}

#[test]
fn a_process_of_the_host_sees_all_that_the_host_has() {
    let facts = leaking(&host(), &host());
    let there = [
        "time since boot",
        "boot id",
        "host name",
        "model of the processor",
        "load",
        "kernel log",
        "other processes",
        "mounts",
        "disks and their sizes",
        "addresses of network interfaces",
    ];
    assert_eq!(facts, there);
}

#[test]
fn nothing_seen_is_nothing_leaked_even_if_the_host_has_nothing_either() {
    assert!(leaking(&Sight::default(), &Sight::default()).is_empty());
    assert!(leaking(&host(), &Sight::default()).is_empty());
}

#[test]
fn a_kernel_of_the_same_release_is_another_one_if_its_boot_id_is() {
    let id = "/proc/sys/kernel/random/boot_id";
    assert!(host_kernel(&host(), &sight(&[(id, file(&host(), id))])).yes);
    assert!(!host_kernel(&host(), &sight(&[(id, "11111111-2f4e-4e0c-9a39-0d7cf2b2a001")])).yes);
    assert!(!host_kernel(&host(), &Sight { release: "4.4.0".to_owned(), ..host() }).yes);
    // Nothing better is known then.
    assert!(host_kernel(&host(), &sight(&[])).yes);
}

#[test]
fn a_log_of_a_kernel_of_its_own_is_no_leak() {
    let guest = Sight { release: "6.1.0".to_owned(), log: host().log, ..Sight::default() };
    assert!(leaking(&host(), &guest).is_empty());
}

#[test]
fn a_disk_of_the_same_name_is_the_hosts_only_if_it_is_as_large() {
    let mount = "22 1 254:1 / / ro - ext4 /dev/vda1 ro";
    let guest = sight(&[("/proc/self/mountinfo", mount), ("/proc/partitions", " 254 1 65536 vda1")]);
    assert!(leaking(&host(), &guest).is_empty());
    let container = sight(&[("/proc/self/mountinfo", mount), ("/proc/partitions", " 254 1 41942016 vda1")]);
    assert_eq!(leaking(&host(), &container), ["mounts", "disks and their sizes"]);
}

#[test]
fn an_overlay_of_the_hosts_kernel_is_the_hosts() {
    let mount = |root: &str| {
        format!("22 1 0:27 {root} / rw - overlay overlay rw,lowerdir=/l\n23 22 0:5 / /proc rw - proc proc rw")
    };
    let host = sight(&[("/proc/self/mountinfo", &mount("/"))]);
    let container = sight(&[("/proc/self/mountinfo", &mount("/tmp/stage/rootfs"))]);
    assert_eq!(leaking(&host, &container), ["mounts"]);
    let guest = Sight { release: "6.1.0".to_owned(), ..container };
    assert!(leaking(&host, &guest).is_empty());
}

#[test]
fn a_load_near_zero_tells_nothing_of_another_kernel() {
    let idle = sight(&[("/proc/loadavg", "0.00 0.01 0.05 1/90 7")]);
    assert_eq!(leaking(&idle, &idle), ["load"], "of one kernel");
    let guest = Sight { release: "6.1.0".to_owned(), ..idle.clone() };
    assert!(leaking(&idle, &guest).is_empty());
    let busy = sight(&[("/proc/loadavg", "3.00 2.50 1.95 1/90 7")]);
    assert_eq!(leaking(&host(), &busy), ["load"]);
}

#[test]
fn what_a_hostile_probe_prints_stays_short_and_on_one_line() {
    let seen = Sight {
        host_name: "x\r\n".repeat(100_000),
        processes: vec!["1 12 systemd".to_owned(), "\u{1b}[2J".repeat(9999)],
        ..sight(&[
            ("/proc/loadavg", "a b NaN"),
            ("/proc/self/mountinfo", " - \n -  \n/dev/"),
            ("/proc/partitions", "1 2 x y z"),
        ])
    };
    for leak in compare(&host(), &seen, true) {
        assert!(leak.seen.chars().count() <= EXCERPT && !leak.seen.contains('\n'), "{}", leak.fact);
    }
}

#[test]
fn nothing_that_identifies_a_host_is_in_the_results() -> anyhow::Result<()> {
    let secrets = [
        ("/etc/machine-id", "0f0e0d0c0b0a09080706050403020100"),
        ("/proc/sys/kernel/random/boot_id", "6c9f0b1e-2f4e-4e0c-9a39-0d7cf2b2a001"),
        ("/proc/cmdline", "root=UUID=secret-root-uuid"),
        ("/proc/modules", "secretmodule 16384 0 - Live 0xffffffffc0a1b000"),
        ("/proc/interrupts", "0: secretinterrupt"),
        ("/sys/class/dmi/id/product_serial", "SERIAL-4711"),
        ("/sys/class/dmi/id/product_uuid", "uuid-of-the-board"),
        ("/proc/self/mountinfo", "22 1 254:1 / /secretmount rw - ext4 /dev/mapper/secretvolume rw"),
        ("/proc/partitions", "254 1 41942016 secretdisk"),
    ];
    let host = Sight {
        version: "#1 SMP secretbuilder".to_owned(),
        host_name: "secrethost".to_owned(),
        processes: vec!["400 900 secretprogram".to_owned()],
        interfaces: vec!["secretlink 52:54:00:ab:cd:ef".to_owned()],
        pci: vec!["0000:00:1f.0 0x8086:0x1234 0xfeb00000".to_owned()],
        log: Some("/dev/kmsg: secretlog".to_owned()),
        symbol: Some("ffffffff81000000 secretsymbol".to_owned()),
        ..sight(&secrets)
    };
    let others = secrets.map(|(path, value)| (path, value.replace(['0', 'e', 'E'], "7")));
    let guest = sight(&others.each_ref().map(|(path, value)| (*path, value.as_str())));
    let words = ["secret", "52:54", "8086", "feb0", "ffffffff", "SERIAL", "uuid-of", "0f0e", "6c9f"];
    for seen in [&host, &Sight { host_name: "inner".to_owned(), ..guest }] {
        let answer = host_kernel(&host, seen);
        let text = serde_json::to_string(&(compare(&host, seen, answer.yes), answer))?;
        let values =
            secrets.iter().map(|&(_, value)| value).chain(others.iter().map(|(_, value)| value.as_str()));
        for value in values.chain(words) {
            assert!(!text.contains(value), "{value} in {text}");
        }
    }
    let told = compare(&host, &host, true);
    let seen = |fact: &str| told.iter().find(|leak| leak.fact == fact).map(|leak| leak.seen.as_str());
    assert_eq!(seen("machine id"), Some("the host's, 32 characters"));
    assert_eq!(seen("kernel addresses"), Some("an address of the kernel"));
    assert_eq!(seen("addresses of network interfaces"), Some("1 of 1 addresses are the host's"));
    Ok(())
}
