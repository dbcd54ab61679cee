//! `--seccomp-filter`: what the user forbids rvmm's threads is not done.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use crate::support::Rvmm;
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

/// A policy that lets everything pass but `forbidden` on vCPUs' threads, and a call on all threads that rvmm never makes.
fn policy(forbidden: &str) -> Disk {
    let without = |call: &str| -> Value {
        json!({"mismatch_action": "allow", "match_action": "kill_process", "filter": [{"syscall": call}]})
    };
    let policy = json!({"vmm": without("ptrace"), "api": without("ptrace"), "vcpu": without(forbidden)});
    Disk::with_content(policy.to_string().as_bytes())
}

#[test]
fn a_guest_runs_under_a_policy_that_lets_it() {
    require_kvm!();
    Rvmm::guest("hello").arg("--seccomp-filter").arg(policy("ptrace").path()).run().assert_clean();
    Rvmm::guest("hello").arg("--no-seccomp").run().assert_clean();
}

#[test]
fn each_kind_of_thread_has_its_filter() {
    require_kvm!();
    let filters = |pid: u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut filtered: Vec<String> = tasks
            .map(|task| task.unwrap().path())
            .filter(|task| fs::read_to_string(task.join("status")).unwrap().contains("Seccomp:\t2"))
            .map(|task| fs::read_to_string(task.join("comm")).unwrap().trim().to_owned())
            .collect();
        // A thread of KVM's own, which the kernel hangs on the process.
        filtered.retain(|name| !name.starts_with("kvm-"));
        filtered.sort();
        filtered
    };
    let policy = policy("ptrace");
    let socket = ApiSocket::new();
    let mut running = Rvmm::guest("spin-forever")
        .arg("--seccomp-filter")
        .arg(policy.path())
        .arg("--api-sock")
        .arg(socket.path())
        .launch();
    running.wait_for("spinning\n");
    socket.get("/").json();
    assert_eq!(filters(running.pid()), ["api", "rvmm", "vcpu0"]);
}

#[test]
fn a_thread_that_does_what_is_forbidden_ends_the_process() {
    require_kvm!();
    // KVM_RUN is an ioctl.
    let policy = policy("ioctl");
    let ended = Rvmm::guest("hlt-forever").arg("--seccomp-filter").arg(policy.path()).run();
    assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{ended:#?}");
}

#[test]
fn a_policy_that_is_none_is_refused_by_its_name() {
    let policy = Disk::with_content(b"\x7fELF\xff");
    let path = policy.path();
    let refused = Rvmm::guest("hello").arg("--seccomp-filter").arg(&path).run();
    refused.assert_refused(1, &[path.to_str().unwrap(), "seccompiler"]);
    let refused = Rvmm::guest("hello").arg("--no-seccomp").arg("--seccomp-filter").arg(&path).run();
    refused.assert_refused(2, &["--no-seccomp"]);
}
