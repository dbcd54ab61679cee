//! Clients as they are, and as they should not be.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::configure::empty;
use super::guest;
use crate::support::api::{ApiSocket, Connection, EventStream, request};
use crate::support::kvm::require_kvm;
use crate::support::{poll, process};

/// Connections that are served at a time.
const MAX_CONNECTIONS: usize = 64;

#[test]
fn followers_that_have_gone_leave_their_places_though_nothing_happens() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    for path in ["/rvmm/events", "/rvmm/console?follow=true"] {
        for _ in 0..3 {
            let followers: Vec<Connection> = (0..MAX_CONNECTIONS)
                .map(|_| {
                    let mut follower = socket.connect();
                    // What comes behind a request that is never done with is not read.
                    follower.send(request("GET", path, "") + "X");
                    follower
                })
                .collect();
            drop(followers);
        }
        socket.get("/").json();
    }
}

#[test]
fn followers_do_not_take_every_place() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    let mut followers: Vec<EventStream> = (0..48).map(|_| EventStream::open(&socket)).collect();
    for follower in &mut followers {
        follower.next();
    }
    socket.get("/rvmm/events").assert_refused("follow");
    socket.get("/rvmm/console?follow=true").assert_refused("follow");
    socket.get("/").json();
    drop(followers);
    assert!(poll(|| {
        let mut connection = socket.connect();
        connection.send(request("GET", "/rvmm/events", ""));
        EventStream::over(connection).next_or_end().is_some()
    }));
}

#[test]
fn a_connection_is_kept_through_writes_reads_and_refusals() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    let mut connection = socket.connect();
    for _ in 0..3 {
        connection.ask("GET", "/", "").json();
        connection.ask("PATCH", "/vm", r#"{"state": "Paused"}"#).assert_done();
        connection.ask("PATCH", "/vm", "nonsense").assert_refused("deserializing");
        connection.ask("DELETE", "/", "").assert_refused("DELETE /");
        connection.ask("PATCH", "/vm", r#"{"state": "Resumed"}"#).assert_done();
    }
}

#[test]
fn requests_that_are_sent_at_once_are_answered_in_their_order() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    let mut connection = socket.connect();
    let paused = request("PATCH", "/vm", r#"{"state": "Paused"}"#);
    let all = [paused, request("GET", "/", ""), request("GET", "/nowhere", "")].concat();
    connection.send(all);
    connection.answer().assert_done();
    assert_eq!(connection.answer().json()["state"], "Paused");
    connection.answer().assert_refused("/nowhere");
}

#[test]
fn a_body_of_51200_bytes_is_read_and_one_more_is_refused_however_it_comes() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    let body = |len: usize| {
        let resumed = r#"{"state": "Resumed"}"#;
        format!("{resumed}{}", " ".repeat(len - resumed.len()))
    };
    let mut connection = socket.connect();
    connection.ask("PATCH", "/vm", &body(51_200)).assert_done();
    connection.ask("PATCH", "/vm", &body(51_201)).assert_refused("51200 bytes");
    connection.ask("PATCH", "/vm", &body(500_000)).assert_refused("51200 bytes");
    connection.ask("GET", "/", "").json();
    let chunked = |len: usize| {
        let body = body(len);
        format!(
            "PATCH /vm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n"
        )
    };
    connection.send(chunked(51_200)).answer().assert_done();
    connection.send(chunked(51_201)).answer().assert_refused("51200 bytes");
    // What is announced and too much is not waited for.
    // Its head is enough.
    let begin = Instant::now();
    for length in [51_201_u64, 9_999_999_999] {
        let announced = format!("PUT /actions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        socket.connect().send(announced).answer().assert_refused("51200 bytes");
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let expecting = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", 4_000_000_000_u64);
    let announced = format!("PUT /actions HTTP/1.1\r\nHost: x\r\n{expecting}\r\n");
    socket.connect().send(announced).answer().assert_refused("51200 bytes");
}

#[test]
fn what_is_no_http_ends_its_connection_and_nothing_else() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    socket.get("/").json();
    let endless = vec![b'x'; 100_000];
    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", &endless, b"GET / HTTP/9.9\r\n\r\n"] {
        let mut connection = socket.connect();
        // It may be closed before all of it is sent.
        let _ = connection.try_send(garbage);
        assert!(connection.is_closed(), "{:?}", String::from_utf8_lossy(garbage));
    }
    socket.get("/").json();
}

#[test]
fn clients_that_stop_half_way_hold_nobody_up() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("count-forever", &socket).launch();
    let whole = request("PATCH", "/vm", r#"{"state": "Paused"}"#);
    let slow: Vec<Connection> = (0..MAX_CONNECTIONS - 1)
        .map(|number| {
            let mut connection = socket.connect();
            connection.send(&whole[..number % whole.len()]);
            connection
        })
        .collect();
    let start = Instant::now();
    assert_eq!(socket.get("/").json()["state"], "Running");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(slow);
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered() {
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    let mut connection = socket.connect();
    for byte in request("PUT", "/entropy", "{}").bytes() {
        connection.send([byte]);
        thread::sleep(Duration::from_millis(1));
    }
    connection.answer().assert_done();
}

#[test]
fn a_body_that_does_not_come_is_waited_for_some_seconds() {
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    let mut connection = socket.connect();
    connection.send("PUT /entropy HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{");
    connection.answer().assert_refused("did not come");
}

#[test]
fn a_client_that_has_said_all_it_has_to_say_is_answered() {
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    let mut connection = socket.connect();
    connection.send(request("GET", "/", "")).end();
    connection.answer().json();
    assert!(connection.is_closed());

    let mut connection = socket.connect();
    let all = [request("PUT", "/entropy", "{}"), request("PUT", "/entropy", "[]"), request("GET", "/", "")];
    connection.send(all.concat()).end();
    connection.answer().assert_done();
    connection.answer().assert_refused("array");
    connection.answer().json();
    assert!(connection.is_closed());
}

#[test]
fn clients_that_are_gone_in_the_middle_of_a_body_leave_their_place() {
    let socket = ApiSocket::new();
    let running = empty(&socket);
    socket.get("/").json();
    let before = process::descriptors(running.pid());
    for _ in 0..2 * MAX_CONNECTIONS {
        socket.connect().send("PUT /entropy HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{");
    }
    let start = Instant::now();
    socket.get("/").json();
    assert!(crate::support::poll(|| process::descriptors(running.pid()) <= before));
    // Nobody waited for the rest of these bodies, which would have taken this long.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn bodies_that_nest_without_end_are_refused() {
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    let mut connection = socket.connect();
    for path in ["/vm/", "/mmds", "/drives/a", "/metrics", "/machine-config"] {
        for open in ["[", "{\"a\":", "{\"drive_id\":[", "{\"rate_limiter\":{\"ops\":"] {
            let method = if path == "/vm/" { "PATCH" } else { "PUT" };
            let body = open.repeat(51_200 / open.len());
            assert_eq!(connection.ask(method, path, &body).status, 400, "{path} {open}");
        }
    }
    connection.ask("GET", "/", "").json();
}

#[test]
fn a_client_beyond_the_64th_is_served_when_there_is_a_place() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    let mut held: Vec<Connection> = (0..MAX_CONNECTIONS).map(|_| socket.connect()).collect();
    for connection in &mut held {
        connection.ask("GET", "/", "").json();
    }
    let path = socket.path();
    let late = thread::spawn(move || Connection::to(&path).ask("GET", "/", "").json());
    thread::sleep(Duration::from_millis(100));
    assert!(!late.is_finished());
    held.pop();
    late.join().unwrap();
}

#[test]
fn many_clients_at_once_are_all_answered() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = guest("count-forever", &socket).launch();
    socket.get("/").json();
    let descriptors = || process::descriptors(running.pid());
    let before = descriptors();
    thread::scope(|scope| {
        for _ in 0..MAX_CONNECTIONS {
            scope.spawn(|| {
                let mut connection = socket.connect();
                for _ in 0..50 {
                    connection.ask("GET", "/vm/config", "").json();
                    connection.ask("PATCH", "/vm", r#"{"state": "Resumed"}"#).assert_done();
                }
            });
        }
    });
    assert!(crate::support::poll(|| descriptors() <= before + 1), "{} descriptors", descriptors());
}

#[test]
fn whoever_asks_when_the_vm_ends_is_answered_or_hears_that_it_has_ended() {
    require_kvm!();
    for _ in 0..10 {
        let socket = ApiSocket::new();
        let mut running = guest("serial-echo", &socket).stdin(Stdio::piped()).launch();
        running.wait_for("ready\n");
        let mut connections: Vec<Connection> = (0..4).map(|_| socket.connect()).collect();
        let clients: Vec<_> = connections
            .drain(..)
            .map(|mut connection| {
                thread::spawn(move || {
                    while connection.try_send(request("GET", "/", "")).is_ok() {
                        match connection.answer_or_end() {
                            Some(answer) if answer.status == 200 => {}
                            Some(answer) => answer.assert_refused("the VM has ended"),
                            None => return,
                        }
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(20));
        running.send("q");
        running.end().assert_clean();
        for client in clients {
            client.join().unwrap();
        }
        assert!(!socket.path().exists());
    }
}

#[test]
fn an_idle_api_takes_no_processor_time() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = guest("hlt-forever", &socket).launch();
    let mut connection = socket.connect();
    connection.ask("GET", "/", "").json();
    connection.ask("PATCH", "/vm", &json!({"state": "Paused"}).to_string()).assert_done();
    let before = process::cpu_ticks(running.pid());
    thread::sleep(Duration::from_millis(500));
    let spent = process::cpu_ticks(running.pid()) - before;
    assert!(spent <= 2, "{spent} ticks of a paused VM in half a second");
}
