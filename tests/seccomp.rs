//! `--seccomp-filter`: what the user forbids rvmm's threads is not done.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use skip::Capability;

use crate::snapshots::Asked;
use crate::snapshots::uffd::Summed;
use crate::support::Rvmm;
use crate::support::api::{self, ApiSocket, Connection};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

/// A policy that lets everything pass but the rules `vmm` and `vcpu` on their threads, and a call on the others that rvmm never
/// makes.
fn policy_of(vmm: &Value, vcpu: &Value) -> Disk {
    let without = |rules: &Value| -> Value {
        json!({"mismatch_action": "allow", "match_action": "kill_process", "filter": rules})
    };
    let policy = json!({"vmm": without(vmm), "api": without(&call("ptrace")), "vcpu": without(vcpu)});
    Disk::with_content(policy.to_string().as_bytes())
}

/// The rule that forbids a system call.
fn call(name: &str) -> Value {
    json!([{"syscall": name}])
}

/// A policy that lets everything pass but `forbidden` on vCPUs' threads.
fn policy(forbidden: &str) -> Disk {
    policy_of(&call("ptrace"), &call(forbidden))
}

#[test]
fn a_guest_runs_under_a_policy_that_lets_it() {
    require_kvm!();
    Rvmm::guest("hello").arg("--seccomp-filter").arg(policy("ptrace").path()).run().assert_clean();
    Rvmm::guest("hello").arg("--no-seccomp").run().assert_clean();
}

/// The threads of the process `pid` by name, and whether each has a filter; those aside that KVM has in the kernel.
fn threads(pid: u32) -> Vec<(String, bool)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads: Vec<(String, bool)> = tasks
        .map(|task| task.unwrap().path())
        .map(|task| {
            let name = fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
            (name, fs::read_to_string(task.join("status")).unwrap().contains("Seccomp:\t2"))
        })
        .filter(|(name, _)| !name.starts_with("kvm-"))
        .collect();
    threads.sort();
    threads
}

fn filtered<const N: usize>(names: [&str; N]) -> Vec<(String, bool)> {
    names.map(|name| (name.to_owned(), true)).to_vec()
}

#[test]
fn each_kind_of_thread_has_its_filter() {
    require_kvm!();
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
    assert_eq!(threads(running.pid()), filtered(["api", "rvmm", "vcpu0"]));
}

#[test]
fn the_thread_that_waits_for_the_memorys_process_has_a_filter() {
    require_kvm!();
    let summed = Summed::new();
    let serving = summed.serve(&["--once"]);
    let policy = policy("ptrace");
    let mut running = summed.restored().arg("--seccomp-filter").arg(policy.path()).launch();
    summed.assert_sums(&mut running);
    let threads = threads(running.pid());
    for name in ["pager", "rvmm", "vcpu0"] {
        assert!(threads.contains(&(name.to_owned(), true)), "{threads:?}");
    }
    assert!(threads.iter().all(|(_, filtered)| *filtered), "{threads:?}");
    running.send("q");
    assert_eq!(running.end().code(), 0);
    serving.end();
}

#[test]
fn the_thread_that_writes_a_snapshot_has_a_filter() {
    require_kvm!();
    // Nothing else renames files.
    let forbidden = json!([{"syscall": "rename"}, {"syscall": "renameat"}, {"syscall": "renameat2"}]);
    let policy = policy_of(&forbidden, &call("ptrace"));
    let asked =
        Asked::launch(Rvmm::guest("spin-forever").arg("--seccomp-filter").arg(policy.path()), "spinning\n");
    let folder = tempfile::tempdir().unwrap();
    let request = json!({"snapshot_path": folder.path().join("snapshot"), "live": true});
    let mut connection = Connection::to(&asked.socket.path());
    connection.send(api::request("PUT", "/snapshot/create", &request.to_string()));
    let ended = asked.running.end();
    assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{ended:#?}");
}

#[test]
fn the_thread_that_reads_a_working_set_ahead_has_a_filter() {
    require_kvm!();
    let asked = Asked::guest("write-on-demand", "!");
    let snapshot = asked.snapshot(&json!({"live": true}));
    drop(asked);
    let mut recording = snapshot.restore().arg("--record").stdin(Stdio::piped()).launch();
    recording.send("w").wait_for("!").signal(libc::SIGTERM);
    recording.end();
    // The host forgets the memory file, so that it has to be read.
    let memory = snapshot.path().join("memory");
    let file_system = Command::new("stat").args(["-f", "-c", "%T"]).arg(&memory).output().unwrap();
    if file_system.stdout == b"tmpfs\n" {
        return skip::skip(Capability::Disk, "the temporary folder is on no disk");
    }
    let dropped = Command::new("dd")
        .arg(format!("of={}", memory.display()))
        .args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0"])
        .output()
        .unwrap();
    assert!(dropped.status.success(), "{dropped:?}");
    // MADV_WILLNEED, which nothing else asks for once there are filters.
    let ahead =
        json!([{"syscall": "madvise", "args": [{"index": 2, "type": "dword", "op": "eq", "val": 3}]}]);
    let policy = policy_of(&ahead, &call("ptrace"));
    let ended = snapshot.restore().arg("--seccomp-filter").arg(policy.path()).run();
    assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{ended:#?}");
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
