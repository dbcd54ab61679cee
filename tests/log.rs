//! What rvmm writes down about itself.

use std::fs;

use crate::support::Rvmm;
use crate::support::api::ApiSocket;
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

#[test]
fn a_failure_and_a_socket_that_is_ready_are_logged() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rvmm.log");
    let refused = Rvmm::new().args(["--kernel", "/nowhere/kernel", "--log-file"]).arg(&path).run();
    refused.assert_refused(1, &["/nowhere/kernel"]);
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.contains("ERROR") && log.contains("/nowhere/kernel"), "{log}");

    let socket = ApiSocket::new();
    let guest = Rvmm::guest("hello").args(["--log-level", "info", "--log-file"]).arg(&path);
    guest.arg("--api-sock").arg(socket.path()).run().assert_clean();
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.contains("API server started."), "{log}");
}

#[test]
fn a_vm_with_a_socket_needs_no_runtime_folder() {
    require_kvm!();
    let socket = ApiSocket::new();
    let named = || {
        let mut rvmm = Rvmm::guest("hello").args(["--id", "jailed"]);
        rvmm.command.env("XDG_RUNTIME_DIR", "/nowhere");
        rvmm
    };
    named().run().assert_refused(1, &["--id jailed", "/nowhere", "XDG_RUNTIME_DIR"]);
    for ended in [named().arg("--api-sock").arg(socket.path()).run(), named().arg("--no-api").run()] {
        assert_eq!((ended.code(), ended.stdout.as_str()), (0, "hello, world\n"), "{ended:#?}");
        assert!(ended.stderr.contains("rvmm ps does not show the VM"), "{ended:#?}");
    }
}
