//! What rvmm writes down about itself.

use std::fs;

use crate::support::Rvmm;
use crate::support::kvm::require_kvm;

#[test]
fn a_good_run_has_nothing_to_log_and_debug_has_much() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rvmm.log");
    let run = |level: &str| {
        let rvmm =
            Rvmm::guest("hello").args(["--log-level", level, "--id", "web-1", "--log-file"]).arg(&path);
        rvmm.run().assert_clean().assert_stdout("hello, world\n");
        fs::read_to_string(&path).unwrap()
    };
    assert_eq!(run("warn"), "");
    let log = run("trace");
    assert!(!log.is_empty() && log.lines().all(|line| line.contains("web-1")), "{log}");
}

#[test]
fn the_log_is_added_to() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rvmm.log");
    fs::write(&path, "before\n").unwrap();
    Rvmm::guest("hello").args(["--log-level", "trace", "--log-file"]).arg(&path).run().assert_clean();
    assert!(fs::read_to_string(&path).unwrap().starts_with("before\n"));
}
