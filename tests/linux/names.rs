//! A Linux guest in the background, by name.

use std::process::Stdio;

use super::{Guest, require_linux_guests};
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
