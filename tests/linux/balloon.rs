//! Memory that the guest gives back, as the host sees it: what is resident in the process of rvmm.

use std::fs;
use std::process::Stdio;

use super::{Guest, require_linux_guests};
use crate::support::{Running, poll};

/// MiB of memory that the process has.
fn resident_mib(guest: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A guest's command that has `mib` MiB of its memory in use for a moment.
fn touch(mib: u32) -> String {
    format!("dd if=/dev/zero of=/fill/file bs=1M count={mib} 2>/dev/null; rm /fill/file")
}

const MOUNT: &str = "mkdir /fill; mount -t tmpfs -o size=90% tmpfs /fill";

#[test]
fn memory_goes_to_the_host_with_the_balloon_and_comes_back() {
    require_linux_guests!();
    // The driver is a module, so the guest can let the balloon go and take it up again.
    let command = format!(
        "rmmod virtio_balloon; {MOUNT}; {touch}; echo touched; read go; \
         insmod /modules/virtio_balloon.ko; while [ $(sed -n 's/^MemFree: *//p' /proc/meminfo | cut -d ' ' -f 1) -gt 120000 ]; do sleep 0.2; done; \
         sleep 1; echo inflated; read go; rmmod virtio_balloon; {touch}; echo deflated; read go",
        touch = touch(144),
    );
    let guest = Guest::debian("6_12").memory("256M").arg("--balloon").arg("size=120M");
    let mut guest = guest.running(&command).stdin(Stdio::piped()).launch();
    guest.wait_for("touched\r\n");
    let touched = resident_mib(&guest);
    guest.send("\n").wait_for("inflated\r\n");
    let inflated = resident_mib(&guest);
    guest.send("\n").wait_for("deflated\r\n");
    let deflated = resident_mib(&guest);
    guest.send("\n").wait_for("rvmm-exit: 0");
    guest.end().assert_clean();
    let seen = format!("resident MiB: {touched} touched, {inflated} inflated, {deflated} deflated");
    eprintln!("{seen}");
    assert!(inflated + 40 < touched && inflated + 40 < deflated, "{seen}");
}

#[test]
fn memory_that_the_guest_frees_goes_to_the_host_when_it_is_reported() {
    require_linux_guests!();
    for (series, reporting) in [("6_12", true), ("6_1", true), ("6_12", false)] {
        let command = format!("{MOUNT}; {}; echo freed; read go", touch(112));
        let options = if reporting { "reporting" } else { "deflate-on-oom" };
        let guest = Guest::debian(series).memory("256M").arg("--balloon").arg(options);
        let mut guest = guest.running(&command).stdin(Stdio::piped()).launch();
        guest.wait_for("freed\r\n");
        let freed = resident_mib(&guest);
        let mut later = freed;
        if reporting {
            // Linux reports two seconds after something was freed.
            let fell = poll(|| {
                later = resident_mib(&guest);
                later + 90 < freed
            });
            assert!(fell, "{series}: {freed} MiB resident, later {later}");
        } else {
            std::thread::sleep(std::time::Duration::from_secs(5));
            later = resident_mib(&guest);
            assert!(later + 10 > freed, "{freed} MiB resident, later {later}");
        }
        eprintln!("{series}: resident MiB: {freed} when it was freed, {later} later; reporting: {reporting}");
        guest.send("\n").wait_for("rvmm-exit: 0");
        guest.end().assert_clean();
    }
}
