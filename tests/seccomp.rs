//! `--seccomp-filter`: what the user forbids rvmm's threads is not done.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use skip::Capability;

use crate::snapshots::Asked;
use crate::support::api::{self, ApiSocket, Connection};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, poll, process};

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

#[test]
fn a_disk_with_the_engine_sync_makes_no_ring_to_the_end() {
    require_kvm!();
    let disk = Disk::new(16, "sector zero here");
    let policy = policy_of(&call("io_uring_setup"), &call("ptrace"));
    let guest = Rvmm::guest("virtio-blk").disk(&disk.path(), ",engine=sync");
    let ended = guest.arg("--seccomp-filter").arg(policy.path()).run();
    ended.assert_clean();
    assert!(ended.stdout.contains("data looklook"), "{ended:#?}");
}

/// The threads of the process `pid` by name, with the number of filters that each has.
fn filters(pid: u32) -> Vec<(String, u32)> {
    let filters = |task: PathBuf| {
        let name = fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")).unwrap();
        (name, count.trim().parse().unwrap())
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut all: Vec<_> = tasks.map(|task| filters(task.unwrap().path())).collect();
    // A thread of KVM's own, which the kernel hangs on the process.
    all.retain(|(name, _)| !name.starts_with("kvm-"));
    all.sort();
    all
}

fn one_each(names: &[&str]) -> Vec<(String, u32)> {
    names.iter().map(|name| ((*name).to_owned(), 1)).collect()
}

#[test]
fn each_thread_has_its_filter_once() {
    require_kvm!();
    let policy = policy("ptrace");
    let socket = ApiSocket::new();
    let mut running = Rvmm::guest("spin-forever")
        .args(["--cpus", "2", "--seccomp-filter"])
        .arg(policy.path())
        .arg("--api-sock")
        .arg(socket.path())
        .launch();
    running.wait_for("spinning\n");
    socket.get("/").json();
    assert_eq!(filters(running.pid()), one_each(&["api", "rvmm", "vcpu0", "vcpu1"]));
}

#[test]
fn the_threads_of_consoles_and_of_served_memory_have_the_filter_of_the_main_thread() {
    require_kvm!();
    let policy = policy("ptrace");
    let asked = Asked::guest("sum-on-demand", "\n");
    let snapshot = asked.snapshot(&json!({"live": true}));
    let memory = ApiSocket::new();
    let mut serving = Rvmm::new().arg("serve-memory").arg(snapshot.path());
    serving = serving.arg("--socket").arg(memory.path());
    let _serving = serving.launch();
    assert!(poll(|| memory.path().exists()));
    let restore = snapshot.restore().arg("--uffd").arg(memory.path()).stdin(Stdio::piped());
    let mut restored = restore.arg("--seccomp-filter").arg(policy.path()).launch();
    restored.send("s").wait_for("\n");
    assert!(poll(|| filters(restored.pid()) == one_each(&["api", "pager", "rvmm", "vcpu0"])));
    let console = Rvmm::guest("virtio-console").args(["--console", "virtio", "--seccomp-filter"]);
    let mut console = console.arg(policy.path()).stdin(Stdio::piped()).launch();
    console.wait_for("\n");
    assert!(
        poll(|| filters(console.pid()).contains(&("console".to_owned(), 1))),
        "{:?}",
        filters(console.pid())
    );
}

/// KVM_RUN, as seccompiler has it.
const KVM_RUN: u32 = 0xae80;

#[test]
fn a_guest_that_boots_again_has_its_vcpus_under_their_own_filter_alone() {
    require_kvm!();
    // The main thread's filter ends the process at what vCPUs do all the time.
    let run =
        json!({"syscall": "ioctl", "args": [{"index": 1, "type": "dword", "op": "eq", "val": KVM_RUN}]});
    let never = json!({"syscall": "ptrace"});
    let filter =
        |call: &Value| json!({"mismatch_action": "allow", "match_action": "kill_process", "filter": [call]});
    let policy = json!({"vmm": filter(&run), "api": filter(&never), "vcpu": filter(&never)});
    let policy = Disk::with_content(policy.to_string().as_bytes());
    let guest = Rvmm::guest("reset-acpi").args(["--on-reset", "restart", "--seccomp-filter"]);
    let mut guest = guest.arg(policy.path()).launch();
    guest.wait_for_times(3, "up\n");
    assert!(filters(guest.pid()).contains(&("vcpu0".to_owned(), 1)));
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn a_vm_whose_filters_cannot_be_installed_never_starts() {
    require_kvm!();
    let policy = policy("ptrace");
    let mut at_once = Rvmm::guest("hello").arg("--seccomp-filter").arg(policy.path());
    process::without_calls(&mut at_once.command, &[libc::SYS_seccomp]);
    at_once.run().assert_refused(1, &["vcpu0", "filter of system calls"]);

    let socket = ApiSocket::new();
    let rvmm = Rvmm::new().arg("--seccomp-filter").arg(policy.path());
    // Its socket has to be filtered as well.
    let mut unserved = rvmm.arg("--api-sock").arg(socket.path());
    process::without_calls(&mut unserved.command, &[libc::SYS_seccomp]);
    unserved.run().assert_refused(1, &["api", "filter of system calls"]);
}

#[test]
fn a_program_that_rvmm_starts_is_under_none_of_its_filters() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let (script, status) = (folder.path().join("script"), folder.path().join("status"));
    let says = format!("#!/bin/sh\ncat /proc/self/status >{0}.new; mv {0}.new {0}; cat\n", status.display());
    fs::write(&script, says).unwrap();
    process::install(&script, &folder.path().join("passt"));
    let policy = policy("ptrace");
    let run = |more: &[&str]| {
        let mut rvmm = Rvmm::guest("hlt-forever").args(["--net", "user"]).args(more);
        rvmm.command.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
        rvmm.arg("--seccomp-filter").arg(policy.path()).launch()
    };
    let mut running = run(&[]);
    running.wait_for("halted\n");
    // The guest has no driver: it was started all the same, when this was still possible.
    assert!(poll(|| status.exists()));
    let status = fs::read_to_string(status).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap();
    assert_eq!(line("Seccomp:"), "Seccomp:\t0");
    assert_eq!(line("SigBlk:"), "SigBlk:\t0000000000000000");
    // Where it would have to be started again, rvmm says so at once.
    run(&["--on-reset", "restart"]).end().assert_refused(1, &["--on-reset restart", "passt", "filter"]);
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
