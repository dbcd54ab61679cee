//! Every kernel comes up to userland, finds its devices, and goes down again.

use super::guest::COMPLAINTS;
use super::{Guest, Report, RootImage, require_linux_guests, resource};

/// Boots, asks the guest what it is and has, and what its kernel has to complain about.
fn boots(guest: Guest) -> Report {
    let report = guest.run(&format!(
        "echo release $(uname -r); echo cpus $(nproc); echo root $(grep ' / ' /proc/mounts); \
         echo entropy $(cat /sys/class/misc/hw_random/rng_current); \
         for i in 1 2; do echo random$i $(head -c 16 /dev/hwrng | md5sum); done; \
         echo clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource); \
         {COMPLAINTS}"
    ));
    report.assert_no_complaints().assert_line("cpus 1").assert_line("clock kvm-clock");
    assert!(report.value("entropy").starts_with("virtio_rng"), "{}", report.text());
    let random = [report.value("random1"), report.value("random2")];
    assert_ne!(random[0], random[1]);
    assert!(!random.contains(&"d41d8cd98f00b204e9800998ecf8427e  -"), "no bytes: {random:?}");
    report
}

#[track_caller]
fn assert_root_is_a_disk(report: &Report, access: &str) {
    let root = report.value("root");
    assert!(root.starts_with("/dev/") && root.contains(&format!(" / ext4 {access},")), "{root}");
}

#[test]
fn debian_6_1_boots_from_its_initramfs() {
    require_linux_guests!();
    let report = boots(Guest::debian("6_1"));
    assert!(report.value("release").starts_with("6.1."), "{}", report.text());
    report.assert_line("rvmm-init");
}

#[test]
fn debian_6_12_boots_to_a_root_on_a_disk_which_it_writes() {
    require_linux_guests!();
    let image = RootImage::new();
    let report = boots(Guest::debian("6_12").root(&image, ""));
    assert!(report.value("release").starts_with("6.12."), "{}", report.text());
    assert_root_is_a_disk(&report, "rw");
    image.assert_clean();
}

#[test]
fn the_small_kernel_boots_as_elf_by_pvh() {
    require_linux_guests!();
    assert_root_is_a_disk(&boots(Guest::small().shared_root()), "ro");
}

#[test]
fn the_small_kernel_boots_as_a_bzimage() {
    require_linux_guests!();
    let kernel = resource("RVMM_KERNEL_SMALL").with_file_name("bzImage");
    assert_root_is_a_disk(&boots(Guest::kernel(&kernel).shared_root()), "ro");
}
