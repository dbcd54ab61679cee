//! How a Linux guest ends itself, and is ended.

use std::fs;

use super::{Guest, RootImage, require_linux_guests};
use crate::support::Ended;

/// Runs `command` in a guest with these `parameters`, whose end is a reset; what it printed, and rvmm's log.
#[track_caller]
fn reset(parameters: &str, command: &str) -> (Ended, String) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let guest = Guest::small().shared_root().parameter(parameters);
    let ended = guest.running(command).args(["--log-level", "info", "--log-file"]).arg(&log).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    (ended, fs::read_to_string(log).unwrap())
}

#[test]
fn a_guest_reboots_by_the_keyboard_controller_by_acpi_and_by_triple_fault() {
    require_linux_guests!();
    for (parameter, port) in [("reboot=k", "0x64"), ("reboot=a", "0x602")] {
        let (ended, log) = reset(parameter, "reboot -f");
        ended.assert_complaint(&["rvmm: the guest reset itself\n"]);
        assert!(log.contains(&format!("Reset by a write to port {port}\n")), "{parameter}: {log}");
    }
    let (ended, log) = reset("reboot=t", "reboot -f");
    ended.assert_complaint(&["rvmm: the guest took a triple fault\n"]);
    assert!(log.contains("TripleFault") && !log.contains("by a write"), "{log}");
}

#[test]
fn a_panic_of_the_kernel_ends_the_vm_as_a_reset() {
    require_linux_guests!();
    let (ended, _) = reset("panic=-1", "echo c >/proc/sysrq-trigger; sleep 1000");
    assert!(ended.stdout.contains("Kernel panic - not syncing: sysrq triggered crash"), "{ended:#?}");
    // The small kernel has no driver for pvpanic.
    ended.assert_complaint(&["rvmm: the guest reset itself\n"]);
}

#[test]
fn a_restarted_guest_boots_again_from_the_disk_that_it_wrote() {
    require_linux_guests!();
    let image = RootImage::new();
    // The second boot powers off.
    let command = "echo boot >>/var/boots; [ $(grep -c boot /var/boots) = 2 ] || end reboot";
    let ended = Guest::small().root(&image, "").arg("--on-reset").arg("restart").running(command).run();
    ended.assert_clean();
    assert_eq!(ended.stdout.matches("rvmm-exit: 0").count(), 1, "{ended:#?}");
    assert_eq!(image.file("/var/boots"), "boot\nboot\n");
    image.assert_clean();
}

#[test]
fn a_signal_ends_a_guest_that_is_idle_and_one_that_is_busy() {
    require_linux_guests!();
    for (command, signal) in
        [("echo now; sleep 1000", libc::SIGTERM), ("echo now; while :; do :; done", libc::SIGINT)]
    {
        let mut guest = Guest::small().shared_root().cpus(2).running(command).launch();
        guest.wait_for("now\r\n").signal(signal);
        let ended = guest.end();
        assert_eq!((ended.code(), ended.stderr.as_str()), (128 + signal, ""), "{command}: {ended:#?}");
    }
}
