//! What many requests leave behind, and what a busy guest does to them.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::guest;
use crate::support::api::{ApiSocket, Connection, request};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::process::{descriptors, resident_kib};
use crate::support::{Running, poll};

/// What one median answer of a busy guest's VM may take: generous, for the machine may be busy with other things too.
const MEDIAN: Duration = Duration::from_millis(200);

/// What the allocator may keep of what was freed, in KiB.
const SLACK_KIB: u64 = 512;

/// A round of requests of each kind, done and refused.
fn round(connection: &mut Connection) {
    connection.ask("GET", "/", "").json();
    connection.ask("GET", "/vm/config", "").json();
    connection.ask("GET", "/rvmm/metrics.json", "").json();
    connection.ask("PATCH", "/vm", r#"{"state": "Resumed"}"#).assert_done();
    connection.ask("PATCH", "/vm", r#"{"state": "Nonsense"}"#).assert_refused("Nonsense");
    connection.ask("PATCH", "/vm", &"[".repeat(10_000)).assert_refused("array");
    connection.ask("PUT", "/entropy", "{}").assert_refused("the VM is running");
    connection.ask("PATCH", "/drives/none", r#"{"drive_id": "none"}"#).assert_refused("no drive");
    connection.ask("GET", "/nowhere", "").assert_refused("/nowhere");
    connection.ask("DELETE", "/", "").assert_refused("DELETE");
}

#[test]
fn ten_thousand_requests_leave_neither_memory_nor_descriptors_behind() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = guest("hlt-forever", &socket).launch();
    let requests = |rounds: usize| {
        let mut connection = socket.connect();
        for number in 0..rounds {
            if number % 10 == 0 {
                connection = socket.connect();
            }
            round(&mut connection);
        }
    };
    requests(50);
    // The last connection is closed a moment later.
    let settled = || {
        thread::sleep(Duration::from_millis(200));
        (descriptors(running.pid()), resident_kib(running.pid()))
    };
    let (files, memory) = settled();
    requests(1000);
    let (files_then, memory_then) = settled();
    assert_eq!(files_then, files);
    assert!(memory_then <= memory + SLACK_KIB, "{memory_then} KiB resident after {memory}");
}

#[test]
fn listeners_who_read_nothing_take_a_bounded_share_and_hold_nobody_up() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = guest("hlt-forever", &socket).launch();
    let mut connection = socket.connect();
    let mut pauses = |count: usize| {
        for _ in 0..count {
            connection.ask("PATCH", "/vm", r#"{"state": "Paused"}"#).assert_done();
            connection.ask("PATCH", "/vm", r#"{"state": "Resumed"}"#).assert_done();
        }
    };
    pauses(50);
    let files = descriptors(running.pid());
    let listeners: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut stream = UnixStream::connect(socket.path()).unwrap();
            stream.write_all(request("GET", "/rvmm/events", "").as_bytes()).unwrap();
            stream
        })
        .collect();
    // Each has one of its own, and one by which it is seen to go.
    assert!(poll(|| descriptors(running.pid()) == files + 2 * listeners.len()));
    // Until they are all too far behind: what the socket itself holds is the host's.
    pauses(1500);
    let memory = resident_kib(running.pid());
    pauses(1500);
    let memory_then = resident_kib(running.pid());
    assert!(memory_then <= memory + SLACK_KIB, "{memory_then} KiB resident after {memory}");
    drop(listeners);
    assert!(poll(|| descriptors(running.pid()) == files), "{}", descriptors(running.pid()));
}

/// How long an answer takes, in the middle of many.
#[track_caller]
fn assert_answers_soon(socket: &ApiSocket, running: &Running) {
    let mut connection = socket.connect();
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(connection.ask("GET", "/", "").json()["state"], "Running");
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(
        times[50] < MEDIAN,
        "{:?} in the middle, {:?} at most; pid {}",
        times[50],
        times[99],
        running.pid()
    );
    // And it can be paused.
    socket.patch("/vm", &json!({"state": "Paused"})).assert_done();
}

#[test]
fn a_guest_whose_processors_all_spin_and_write_does_not_keep_clients_waiting() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = guest("serial-flood-smp", &socket).args(["--cpus", "2"]).stdout(Stdio::null()).launch();
    let written = || socket.get("/rvmm/metrics.json").json()["uart"]["output_bytes"].as_u64();
    assert!(poll(|| written().is_some_and(|bytes| bytes > 1000)));
    assert_answers_soon(&socket, &running);
}

#[test]
fn a_guest_that_reads_its_disk_without_end_does_not_keep_clients_waiting() {
    require_kvm!();
    let socket = ApiSocket::new();
    let disk = Disk::new(8, "");
    for engine in ["sync", "io_uring"] {
        let options = format!(",engine={engine},id=data");
        let mut running = guest("virtio-blk-flood", &socket).disk(&disk.path(), &options).launch();
        running.wait_for("flooding\n");
        let reads = || socket.get("/rvmm/metrics.json").json()["block"]["data"]["reads"].as_u64().unwrap();
        assert!(poll(|| reads() > 100), "{engine}: {} reads", reads());
        assert_answers_soon(&socket, &running);
    }
}
