//! Pausing a guest and letting it go on.

use std::io::Read;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::guest;
use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;
use crate::support::{poll, process};

/// Long enough for a guest that runs to print.
const A_WHILE: Duration = Duration::from_millis(300);

fn pause(socket: &ApiSocket) {
    socket.patch("/vm", &json!({"state": "Paused"})).assert_done();
    assert_eq!(socket.get("/").json()["state"], "Paused");
}

fn resume(socket: &ApiSocket) {
    socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
    assert_eq!(socket.get("/").json()["state"], "Running");
}

/// The numbers of `count-forever` follow each other.
#[track_caller]
fn assert_consecutive(printed: &str) {
    let whole = printed.rsplit_once('\n').unwrap().0;
    for (line, number) in whole.lines().zip(1..) {
        assert_eq!(line, format!("{number:08x}"));
    }
}

#[test]
fn a_paused_guest_prints_nothing_and_goes_on_where_it_was() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = guest("count-forever", &socket).launch();
    for round in 1..4 {
        let lines = running.printed().lines().count();
        running.wait_for_times(lines + 10, "\n");
        pause(&socket);
        // What was on its way to us is here.
        thread::sleep(A_WHILE);
        let before = running.printed();
        thread::sleep(A_WHILE);
        assert_eq!(running.printed(), before, "round {round}");
        resume(&socket);
    }
    let lines = running.printed().lines().count();
    running.wait_for_times(lines + 10, "\n").signal(libc::SIGTERM);
    let ended = running.end();
    assert_consecutive(&ended.stdout);
}

#[test]
fn pausing_a_paused_guest_and_resuming_a_running_one_are_done_already() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    resume(&socket);
    pause(&socket);
    pause(&socket);
    resume(&socket);
    resume(&socket);
}

#[test]
fn a_guest_that_writes_to_a_pipe_that_nobody_reads_is_paused_and_loses_nothing() {
    require_kvm!();
    let socket = ApiSocket::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    process::shrink_pipe(&writer);
    let mut running = guest("count-forever", &socket).stdout(writer.into()).launch();
    let mut readable = 0;
    // It is full when nothing more comes.
    assert!(poll(|| {
        thread::sleep(Duration::from_millis(20));
        let before = std::mem::replace(&mut readable, process::readable(&reader));
        readable == before && readable >= 4096
    }));
    for _ in 0..3 {
        pause(&socket);
        resume(&socket);
    }
    let mut printed = vec![0; 2 * readable];
    reader.read_exact(&mut printed).unwrap();
    assert_consecutive(std::str::from_utf8(&printed).unwrap());
    running.signal(libc::SIGTERM);
    drop(reader);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn a_paused_vm_is_ended_by_a_signal() {
    require_kvm!();
    let socket = ApiSocket::new();
    for name in ["hlt-forever", "spin-forever"] {
        let mut running = guest(name, &socket).launch();
        pause(&socket);
        running.signal(libc::SIGTERM);
        assert_eq!(running.end().code(), 128 + libc::SIGTERM);
        assert!(!socket.path().exists());
    }
}

#[test]
fn what_is_typed_to_a_paused_guest_reaches_it_when_it_goes_on() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = guest("serial-echo", &socket).stdin(std::process::Stdio::piped()).launch();
    running.wait_for("ready\n");
    pause(&socket);
    running.send("hello");
    thread::sleep(A_WHILE);
    assert_eq!(running.printed(), "ready\n");
    resume(&socket);
    running.wait_for("hello").send("q");
    running.end().assert_clean().assert_stdout("ready\nhello");
}

#[test]
fn every_vcpu_is_paused() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = guest("smp-flood", &socket).args(["--cpus", "4"]).launch();
    for _ in 0..20 {
        pause(&socket);
        resume(&socket);
    }
    running.signal(libc::SIGTERM);
    running.end();
}

#[test]
fn a_guest_that_resets_all_the_time_stays_paused_until_it_may_go_on() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = guest("reset-acpi", &socket).args(["--on-reset", "restart"]).launch();
    running.wait_for_times(3, "up\n");
    for _ in 0..5 {
        pause(&socket);
        thread::sleep(A_WHILE);
        let before = running.printed();
        thread::sleep(A_WHILE);
        assert_eq!(running.printed(), before);
        resume(&socket);
        running.wait_for_times(before.lines().count() + 3, "up\n");
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
}
