//! A Linux guest in the background, by name.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Guest, require_linux_guests, resource};
use crate::support::disk::Disk;
use crate::support::{Rvmm, poll};

#[test]
fn a_guest_in_the_background_runs_what_is_typed_and_is_stopped() {
    require_linux_guests!();
    let runtime = tempfile::tempdir().unwrap();
    let of = |mut rvmm: Rvmm| {
        rvmm.command.env("XDG_RUNTIME_DIR", runtime.path());
        rvmm
    };
    let verb = |words: &[&str]| of(Rvmm::new()).args(words);
    let guest = Guest::debian("6_12").args(["--detach", "--id", "linux"]);
    of(guest.into_rvmm()).run().assert_clean().assert_stdout("linux\n");

    let mut console = verb(&["console", "linux"]).stdin(Stdio::piped()).launch();
    console.wait_for("# ").send("echo sum $((40 + 2)) by name\n").wait_for("sum 42 by name");
    let logs = verb(&["logs", "linux"]).run();
    logs.assert_clean();
    assert!(logs.stdout.contains("sum 42 by name"), "{logs:#?}");
    let list = verb(&["ps"]).run();
    list.assert_clean();
    assert!(list.stdout.contains("linux") && list.stdout.contains("Running"), "{list:#?}");
    // The keyboard's driver is a module, which may not be that far yet; then SIGTERM would end the guest.
    let inspected = verb(&["inspect", "linux"]).run();
    inspected.assert_clean();

    let stopped = verb(&["stop", "linux", "--timeout", "60"]).run();
    assert_eq!((stopped.code(), stopped.stderr.as_str()), (0, ""), "{stopped:#?}");
    console.end().assert_clean();
    assert!(poll(|| verb(&["ps", "--names"]).run().stdout.is_empty()));
}

/// A disk with an archive of these modules of Debian's kernel, without their compression.
fn modules(kernel: &Path, names: &[&str]) -> Disk {
    let version = kernel.file_name().unwrap().to_str().unwrap().strip_prefix("vmlinuz-").unwrap();
    let root = kernel.parent().unwrap().parent().unwrap();
    let drivers = root.join("lib/modules").join(version).join("kernel/drivers");
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let output =
            Command::new("xz").arg("-dc").arg(drivers.join(format!("{name}.ko.xz"))).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        fs::write(folder.path().join(name.replace('/', "-") + ".ko"), output.stdout).unwrap();
    }
    let archive = Command::new("tar").arg("-cC").arg(folder.path()).arg(".").output().unwrap();
    assert!(archive.status.success(), "{archive:?}");
    Disk::with_content(&archive.stdout)
}

#[test]
fn a_guest_that_boots_again_after_a_reset_is_stopped_by_its_power_button() {
    require_linux_guests!();
    let runtime = tempfile::tempdir().unwrap();
    let of = |mut rvmm: Rvmm| {
        rvmm.command.env("XDG_RUNTIME_DIR", runtime.path());
        rvmm
    };
    let verb = |words: &[&str]| of(Rvmm::new()).args(words);
    let disk = modules(&resource("RVMM_KERNEL_6_12"), &["acpi/button", "input/evdev"]);
    let guest = Guest::debian("6_12").disk(&disk.path(), ",readonly");
    let guest = guest.args(["--detach", "--id", "linux", "--on-reset", "restart"]);
    of(guest.into_rvmm()).run().assert_clean();

    let mut console = verb(&["console", "linux"]).stdin(Stdio::piped()).launch();
    console.wait_for("# ");
    for line in [
        "mkdir -p /m/on/PWRF; cd /m; tar xf /dev/vda; insmod acpi-button.ko; insmod input-evdev.ko",
        "printf '#!/bin/sh\\necho pressed; poweroff -f\\n' >on/PWRF/00000080; chmod +x on/PWRF/00000080",
        "acpid -d -c /m/on & sleep 2; echo it listens: $((40 + 2))",
    ] {
        console.send(line).send("\n");
    }
    console.wait_for("it listens: 42");
    let stopped = verb(&["stop", "linux", "--timeout", "120"]).run();
    assert_eq!((stopped.code(), stopped.stderr.as_str()), (0, ""), "{stopped:#?}");
    let console = console.end();
    assert!(console.stdout.contains("pressed"), "{console:#?}");
}
