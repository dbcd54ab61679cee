//! `resources/demo`, which `make demo` runs: a new user's first look at rvmm.

use std::process::Command;

use super::require_linux_guests;
use crate::support::Rvmm;

#[test]
fn the_demo_boots_a_guest_that_writes_to_its_disk() {
    require_linux_guests!();
    let demo = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/resources/demo"));
    let ended = Rvmm::within(demo).arg(env!("CARGO_BIN_EXE_rvmm")).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    for line in [
        "rvmm-init",
        "Userland, ",
        "/var/rvmm-demo: written by the guest",
        "The guest booted, ran and powered off in",
    ] {
        assert!(ended.stdout.contains(line), "no {line:?}: {ended:#?}");
    }
}
