//! `/rvmm/console`.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::guest;
use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;
use crate::support::poll;

#[test]
fn what_the_guest_wrote_is_read_and_what_is_typed_reaches_it() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = guest("serial-echo", &socket).launch();
    assert!(poll(|| socket.get("/rvmm/console").body == "ready\n"));
    let mut connection = socket.connect();
    let text = "a line with \"marks\" and \x01\x03\n";
    connection.ask("PUT", "/rvmm/console", text).assert_done();
    assert!(poll(|| connection.ask("GET", "/rvmm/console", "").body == format!("ready\n{text}")));
    connection.ask("PUT", "/rvmm/console", "q").assert_done();
    running.end().assert_clean();
}

#[test]
fn a_console_is_empty_before_its_guest_starts_and_nothing_can_be_typed() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = crate::support::Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    let answer = socket.get("/rvmm/console");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    socket.connect().ask("PUT", "/rvmm/console", "x").assert_refused("the VM is not started");
}

#[test]
fn what_the_guest_does_not_read_is_refused_after_a_while_and_the_vm_answers_meanwhile() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    let begin = Instant::now();
    thread::scope(|scope| {
        let typing = scope.spawn(|| socket.connect().ask("PUT", "/rvmm/console", &"x".repeat(50_000)));
        while !typing.is_finished() {
            assert_eq!(socket.get("/").status, 200);
            thread::sleep(Duration::from_millis(20));
        }
        // The port holds 64 bytes.
        typing.join().unwrap().assert_refused("64 of 50000 bytes were typed");
    });
    assert!(begin.elapsed() >= Duration::from_secs(4));
}

#[test]
fn what_is_no_query_is_refused() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    socket.get("/rvmm/console?tail=3").assert_refused("follow=true");
    assert_eq!(socket.get("/rvmm/console?follow=false").status, 200);
    socket.connect().ask("PUT", "/rvmm/console", "").assert_refused("Empty PUT request");
    socket.patch("/rvmm/console", &json!({})).assert_refused("Invalid request method");
}
