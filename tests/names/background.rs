//! `--detach`.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use super::Host;
use crate::support::Rvmm;
use crate::support::api::Connection;
use crate::support::kvm::require_kvm;
use crate::support::{poll, process};

#[test]
fn a_vm_in_the_background_outlives_who_started_it_and_has_a_session_of_its_own() {
    require_kvm!();
    let host = Host::new();
    let started = host.of(Rvmm::guest("spin-forever")).arg("-d").run();
    started.assert_clean();
    let id = started.stdout.trim_end();
    assert_eq!((started.stdout.lines().count(), id.len()), (1, 12), "{started:#?}");
    let listed = host.listed(id).unwrap();
    assert_eq!(listed["state"], "Running");
    let pid = listed["pid"].as_u64().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // proc_pid_stat(5): after the name come state, parent, process group, session.
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, pid.to_string());
    for descriptor in 0..3 {
        let file = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
        assert_eq!(file.to_str(), Some("/dev/null"));
    }
}

#[test]
fn a_guest_in_the_background_that_ends_leaves_nothing() {
    require_kvm!();
    let host = Host::new();
    host.detach("hello", "short");
    assert!(poll(|| !host.folder("short").exists()));
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_vm_that_cannot_be_started_says_why_and_leaves_nothing() {
    let host = Host::new();
    let rvmm = host.of(Rvmm::new()).args(["--detach", "--id", "bad", "--kernel", "/does/not/exist"]);
    rvmm.run().assert_refused(1, &["/does/not/exist"]);
    assert!(poll(|| !host.folder("bad").exists()));
    let rvmm = host.of(Rvmm::new()).args(["--detach", "--id", "no/name", "--kernel", "x"]);
    rvmm.run().assert_refused(1, &["1 to 64 letters"]);
    let mut rvmm = Rvmm::new().args(["--detach", "--kernel", "x"]);
    rvmm.command.env("XDG_RUNTIME_DIR", "/proc");
    rvmm.run().assert_refused(1, &["cannot take the name"]);
}

#[test]
fn a_vm_that_fails_in_the_background_is_there_to_be_asked_why() {
    require_kvm!();
    let host = Host::new();
    host.detach("execute-device", "bad");
    host.wait_for_state("bad", "Failed");
    let why = "KVM";
    assert!(host.json(["inspect", "bad"])["error"].as_str().unwrap().contains(why));
    let log = host.ask(["logs", "--vmm", "bad"]);
    assert!(log.contains(" bad ERROR ") && log.contains(why), "{log}");
    host.refused(["logs", "bad"], &["it has failed", why, "rvmm rm bad"]);
    host.ask(["rm", "bad"]);
    assert_eq!(host.names(), [""; 0]);
    // So does the next VM of its name, which knows nothing of it.
    host.detach("execute-device", "bad");
    host.wait_for_state("bad", "Failed");
    host.detach("spin-forever", "bad");
    assert_eq!(host.ask(["logs", "--vmm", "bad"]), "");
}

#[test]
fn an_empty_vm_in_the_background_is_configured_and_started_over_its_socket() {
    require_kvm!();
    let host = Host::new();
    let socket = host.runtime.path().join("api.sock");
    let rvmm = host.of(Rvmm::new()).args(["-d", "--id", "empty", "--api-sock"]).arg(&socket);
    rvmm.run().assert_clean().assert_stdout("empty\n");
    assert_eq!(host.listed("empty").unwrap()["state"], "Not started");
    let mut api = Connection::to(&socket);
    assert_eq!(api.ask("GET", "/rvmm/console", "").status, 200);
    let kernel = crate::support::bare::path("serial-echo");
    api.ask("PUT", "/boot-source", &json!({"kernel_image_path": kernel}).to_string()).assert_done();
    api.ask("PUT", "/actions", &json!({"action_type": "InstanceStart"}).to_string()).assert_done();
    host.wait_for_output("empty", "ready\n");
    assert_eq!(host.listed("empty").unwrap()["state"], "Running");
    assert_eq!(host.verb(["stop", "empty"]).run().code(), 3);
}

#[test]
fn a_terminal_is_free_again_once_the_vm_is_in_the_background() {
    require_kvm!();
    let host = Host::new();
    // Whoever reads what a command prints to its end is not kept waiting.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut rvmm = host.guest("spin-forever", "web").arg("--detach").stdout(writer.into());
    rvmm.command.stderr(Stdio::null());
    rvmm.run();
    drop(std::io::read_to_string(reader).unwrap());
    host.wait_for_state("web", "Running");
}

#[test]
fn a_vm_in_the_background_keeps_nothing_of_its_starter_s_open() {
    require_kvm!();
    let host = Host::new();
    let mut shell = std::process::Command::new("sh");
    let path = host.runtime.path().join("held");
    shell.args(["-c", "exec 3>\"$0\" 9>\"$0\"; exec \"$@\""]).arg(&path).arg(env!("CARGO_BIN_EXE_rvmm"));
    let guest = crate::support::bare::path("spin-forever");
    let rvmm = host.of(Rvmm::within(shell)).args(["--detach", "--id", "web", "--kernel"]).arg(guest);
    rvmm.run().assert_clean();
    let pid = host.listed("web").unwrap()["pid"].as_u64().unwrap();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(open.len() > 3 && !open.contains(&path), "{open:?}");
}

#[test]
fn the_log_of_a_vm_in_the_background_is_where_it_is_asked_to_be() {
    require_kvm!();
    let host = Host::new();
    let log = host.runtime.path().join("own.log");
    let rvmm =
        host.guest("spin-forever", "web").args(["--detach", "--log-level", "debug", "--log-file"]).arg(&log);
    rvmm.run().assert_clean();
    host.ask(["pause", "web"]);
    assert!(fs::read_to_string(&log).unwrap().contains(" web "));
    host.refused(["logs", "--vmm", "web"], &["--log-file"]);
    let pid = host.listed("web").unwrap()["pid"].as_u64().unwrap();
    process::kill(u32::try_from(pid).unwrap(), libc::SIGTERM);
    assert!(poll(|| host.names().is_empty()));
}
