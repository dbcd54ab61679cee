//! The CPUs and the memory that a guest finds.

use super::guest::COMPLAINTS;
use super::{Guest, require_linux_guests};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn the_guest_has_its_cpus_each_a_core_of_one_package() {
    require_linux_guests!();
    for count in [1, 2, 4] {
        let report = Guest::small().shared_root().cpus(count).run(&format!(
            "echo nproc $(nproc); echo online $(cat /sys/devices/system/cpu/online); \
             echo cores $(sed -n 's/^cpu cores.*: //p' /proc/cpuinfo); \
             echo siblings $(sed -n 's/^siblings.*: //p' /proc/cpuinfo); \
             echo packages $(sed -n 's/^physical id.*: //p' /proc/cpuinfo); \
             echo ids $(sed -n 's/^core id.*: //p' /proc/cpuinfo); \
             echo runs $(for i in $(seq 0 {last}); do taskset -c $i awk '{{print $39}}' /proc/self/stat; done); \
             {COMPLAINTS}",
            last = count - 1,
        ));
        report.assert_no_complaints();
        let all = |value: &str| vec![value; count as usize].join(" ");
        let online = if count == 1 { "0".to_owned() } else { format!("0-{}", count - 1) };
        assert_eq!(report.value("nproc"), count.to_string());
        assert_eq!(report.value("online"), online);
        assert_eq!(report.value("cores"), all(&count.to_string()));
        assert_eq!(report.value("siblings"), all(&count.to_string()));
        assert_eq!(report.value("packages"), all("0"));
        let ids: Vec<String> = (0..count).map(|id| id.to_string()).collect();
        assert_eq!(report.value("ids"), ids.join(" "));
        // The CPU that a process last ran on (proc(5)).
        assert_eq!(report.value("runs"), ids.join(" "));
    }
}

#[test]
fn the_guest_has_its_memory_on_both_sides_of_the_gap() {
    require_linux_guests!();
    for (size, mib, last_low, last_high) in [
        ("64M", 64, 64 * MIB - 1, None),
        ("3584M", 3584, 3 * GIB - 1, Some(4 * GIB + 512 * MIB - 1)),
        ("5G", 5120, 3 * GIB - 1, Some(6 * GIB - 1)),
    ] {
        let report = Guest::small().shared_root().memory(size).run(&format!(
            "echo total $(sed -n 's/MemTotal: *//p' /proc/meminfo); dmesg | grep BIOS-e820; \
             dd if=/dev/urandom of=/tmp/noise bs=1M count=8 && cp /tmp/noise /tmp/copy && cmp /tmp/noise /tmp/copy && \
             echo holds; {COMPLAINTS}"
        ));
        report.assert_no_complaints().assert_line("holds");
        let usable = |first: u64, last: u64| format!("BIOS-e820: [mem {first:#018x}-{last:#018x}] usable");
        assert!(report.text().contains(&usable(MIB, last_low)), "{}", report.text());
        match last_high {
            Some(last) => assert!(report.text().contains(&usable(4 * GIB, last)), "{}", report.text()),
            None => assert!(!report.text().contains("[mem 0x00000001"), "{}", report.text()),
        }
        // The kernel takes for itself its code, a 64th for its page structures, and 64 MiB to bounce DMA above 4 GiB.
        let total: u64 = report.value("total").strip_suffix(" kB").unwrap().parse().unwrap();
        let given = mib * 1024;
        let bounce = if last_high.is_some() { 64 * 1024 } else { 0 };
        assert!(total < given && total > given - given / 32 - 24 * 1024 - bounce, "{size}: {total} kB");
    }
}
