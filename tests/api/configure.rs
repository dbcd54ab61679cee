//! A VM that is made over the socket, from nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::{ApiSocket, Connection, EventStream, request};
use crate::support::bare;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::process;
use crate::support::{Running, Rvmm};

/// rvmm with nothing but a socket.
pub(super) fn empty(socket: &ApiSocket) -> Running {
    Rvmm::new().arg("--api-sock").arg(socket.path()).launch()
}

fn boot_source(name: &str) -> Value {
    json!({"kernel_image_path": bare::path(name)})
}

fn start(socket: &ApiSocket) {
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_done();
}

#[test]
fn a_vm_is_configured_started_and_ends() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = empty(&socket);
    assert_eq!(socket.get("/").json()["state"], "Not started");
    assert_eq!(socket.get("/machine-config").json()["vcpu_count"], 1);
    socket.put("/machine-config", &json!({"vcpu_count": 2, "mem_size_mib": 64})).assert_done();
    socket.patch("/machine-config", &json!({"mem_size_mib": 32})).assert_done();
    let disk = Disk::new(8, "");
    let drive = json!({"drive_id": "data", "is_root_device": false, "path_on_host": disk.path()});
    socket.put("/drives/data", &drive).assert_done();
    socket.put("/entropy", &json!({})).assert_done();
    socket.put("/boot-source", &boot_source("spin-forever")).assert_done();
    start(&socket);
    running.wait_for("spinning\n");
    assert_eq!(socket.get("/").json()["state"], "Running");
    let config = socket.get("/vm/config").json();
    assert_eq!(config["machine-config"]["vcpu_count"], 2);
    assert_eq!(config["machine-config"]["mem_size_mib"], 32);
    assert_eq!(config["drives"][0]["drive_id"], "data");
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
    assert!(!socket.path().exists());
}

#[test]
fn a_guest_that_is_started_over_the_socket_powers_off() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = empty(&socket);
    socket.put("/boot-source", &boot_source("hello")).assert_done();
    start(&socket);
    let ended = running.end();
    ended.assert_clean();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    let before = socket.get("/vm/config").json();
    socket.put("/machine-config", &json!({"vcpu_count": 33, "mem_size_mib": 64})).assert_refused("33 vCPUs");
    socket.put("/machine-config", &json!({"vcpu_count": 1})).assert_refused("mem_size_mib");
    socket.patch("/machine-config", &json!({})).assert_refused("nothing to change");
    socket.put("/boot-source", &json!({"kernel_image_path": "/nowhere"})).assert_refused("kernel /nowhere");
    let drive = json!({"drive_id": "a", "is_root_device": true});
    socket.put("/drives/a", &drive).assert_refused("path_on_host");
    socket.put("/vsock", &json!({"guest_cid": 2, "uds_path": "v"})).assert_refused("2");
    socket.put("/balloon", &json!({"amount_mib": 4096, "deflate_on_oom": true})).assert_refused("4096");
    socket.put("/logger", &json!({"log_path": "/nowhere/at/all"})).assert_refused("/nowhere/at/all");
    assert_eq!(socket.get("/vm/config").json(), before);
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_refused("no kernel");
    assert_eq!(socket.get("/").json()["state"], "Not started");
}

#[test]
fn what_needs_a_guest_is_refused_before_there_is_one() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    for (path, body) in [
        ("/vm", json!({"state": "Paused"})),
        ("/vm", json!({"state": "Resumed"})),
        ("/drives/a", json!({"drive_id": "a"})),
        ("/network-interfaces/a", json!({"iface_id": "a"})),
        ("/balloon", json!({"amount_mib": 1})),
    ] {
        socket.patch(path, &body).assert_refused("the VM is not started");
    }
    for action in ["SendCtrlAltDel", "FlushMetrics"] {
        socket.put("/actions", &json!({"action_type": action})).assert_refused("the VM is not started");
    }
}

#[test]
fn a_start_that_fails_can_be_tried_again() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = empty(&socket);
    socket.put("/boot-source", &boot_source("spin-forever")).assert_done();
    let disk = Disk::new(8, "");
    let drive = |path: &str| json!({"drive_id": "a", "is_root_device": false, "path_on_host": path});
    let other = Rvmm::guest("hlt-forever").disk(&disk.path(), "").launch();
    let path = disk.path();
    assert!(crate::support::poll(|| process::threads(other.pid()) > 1));
    socket.put("/drives/a", &drive(path.to_str().unwrap())).assert_done();
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_refused("cannot be started");
    assert_eq!(socket.get("/").json()["state"], "Not started");
    drop(other);
    start(&socket);
    running.wait_for("spinning\n");
}

#[test]
fn whoever_asks_while_the_vm_starts_is_answered() {
    require_kvm!();
    for _ in 0..20 {
        let socket = ApiSocket::new();
        let _running = empty(&socket);
        socket.put("/boot-source", &boot_source("hlt-forever")).assert_done();
        let started = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut connection = socket.connect();
                    while !started.load(Ordering::SeqCst) {
                        assert_eq!(connection.ask("GET", "/", "").status, 200);
                    }
                });
            }
            start(&socket);
            started.store(true, Ordering::SeqCst);
        });
        assert_eq!(socket.get("/").json()["state"], "Running");
    }
}

#[test]
fn a_signal_is_heard_while_clients_ask_a_vm_that_is_not_started() {
    let socket = ApiSocket::new();
    let mut running = empty(&socket);
    socket.get("/");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut connection = Connection::to(&socket.path());
                while connection.try_send(request("GET", "/vm/config", "")).is_ok()
                    && connection.answer_or_end().is_some()
                {}
            });
        }
        thread::sleep(Duration::from_millis(100));
        running.signal(libc::SIGTERM);
        assert_eq!(running.end().code(), 128 + libc::SIGTERM);
    });
}

#[test]
fn a_vm_that_runs_takes_no_more_configuration() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = Rvmm::guest("hlt-forever").arg("--api-sock").arg(socket.path()).launch();
    let refused = socket.put("/boot-source", &boot_source("hello"));
    refused.assert_refused("the VM is running");
    refused.assert_refused("The requested operation is not supported after starting the microVM.");
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 64});
    socket.put("/machine-config", &machine).assert_refused("the VM is running");
    socket.patch("/machine-config", &json!({"vcpu_count": 1})).assert_refused("the VM is running");
    socket.put("/entropy", &json!({})).assert_refused("the VM is running");
}

#[test]
fn a_signal_ends_a_vm_that_was_never_started() {
    let socket = ApiSocket::new();
    let mut running = empty(&socket);
    socket.get("/");
    running.signal(libc::SIGINT);
    assert_eq!(running.end().code(), 128 + libc::SIGINT);
    assert!(!socket.path().exists());
}

#[test]
fn the_serial_port_goes_where_it_was_told_and_not_beyond_its_limit() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let run = |serial: Value| {
        let socket = ApiSocket::new();
        let running = empty(&socket);
        socket.put("/serial", &serial).assert_done();
        socket.put("/boot-source", &boot_source("hello")).assert_done();
        start(&socket);
        running.end().assert_clean().assert_stdout("");
        fs::read_to_string(&path).unwrap()
    };
    let text = run(json!({"serial_out_path": path}));
    assert!(text.contains("hello"), "{text}");
    let limit = json!({"size": 3, "refill_time": 3_600_000});
    assert_eq!(run(json!({"serial_out_path": path, "rate_limiter": limit})), text[..3]);
}

#[test]
fn what_rvmm_writes_to_is_no_disk_of_the_guest_whichever_comes_first() {
    require_kvm!();
    let (disk, other) = (Disk::new(8, ""), Disk::new(8, ""));
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    let drive = |disk: &Disk| json!({"drive_id": "a", "is_root_device": false, "path_on_host": disk.path()});
    socket.put("/logger", &json!({"log_path": disk.path(), "level": "Off"})).assert_done();
    socket.put("/drives/a", &drive(&disk)).assert_done();
    socket.put("/boot-source", &boot_source("hlt-forever")).assert_done();
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_refused("cannot log to");
    socket.put("/drives/a", &drive(&other)).assert_done();
    start(&socket);
    let swap = json!({"drive_id": "a", "path_on_host": disk.path()});
    socket.patch("/drives/a", &swap).assert_refused("where rvmm writes its log");
}

#[test]
fn the_log_goes_where_the_socket_says() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let socket = ApiSocket::new();
    let _running = empty(&socket);
    socket
        .put("/logger", &json!({"log_path": first, "level": "Debug", "show_log_origin": true}))
        .assert_done();
    socket.get("/");
    let text = fs::read_to_string(&first).unwrap();
    assert!(text.contains("DEBUG api::server api/src/server.rs:"), "{text}");
    socket.put("/logger", &json!({"log_path": second, "level": "Error"})).assert_done();
    socket.get("/");
    assert_eq!(fs::read_to_string(&second).unwrap(), "");
    assert_eq!(socket.get("/vm/config").json()["logger"]["level"], "Error");
}

#[test]
fn what_a_request_does_not_say_of_the_log_stays_as_the_options_said() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let socket = ApiSocket::new();
    let rvmm = Rvmm::new().arg("--api-sock").arg(socket.path()).args(["--log-level", "debug", "--log-file"]);
    let _running = rvmm.arg(&log).launch();
    socket.put("/logger", &json!({"show_log_origin": true})).assert_done();
    socket.get("/");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("DEBUG api::server api/src/server.rs:"), "{text}");
    assert_eq!(socket.get("/vm/config").json()["logger"]["level"], "Debug");
}

#[test]
fn lines_of_metrics_have_what_was_asked_for() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let socket = ApiSocket::new();
    let running = empty(&socket);
    let id = socket.get("/").json()["id"].clone();
    let metrics = json!({"metrics_path": path, "emit_id": true, "properties": {"zone": "a"}});
    socket.put("/metrics", &metrics).assert_done();
    socket.put("/boot-source", &boot_source("hello")).assert_done();
    start(&socket);
    running.end().assert_clean();
    let text = fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&line["id"], &line["properties"]["zone"]), (&id, &json!("a")));
    assert!(line["vcpu"]["exits"].is_object());
}

#[test]
fn what_happens_is_told_as_it_happens() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = empty(&socket);
    socket.get("/");
    let mut events = EventStream::open(&socket);
    assert_eq!(events.next(), json!({"event": "state", "state": "Not started"}));
    socket.put("/boot-source", &boot_source("spin-forever")).assert_done();
    start(&socket);
    assert_eq!(events.next(), json!({"event": "state", "state": "Running"}));
    running.wait_for("spinning\n");
    socket.patch("/vm", &json!({"state": "Paused"})).assert_done();
    assert_eq!(events.next(), json!({"event": "state", "state": "Paused"}));
    socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
    assert_eq!(events.next(), json!({"event": "state", "state": "Running"}));
    running.signal(libc::SIGTERM);
    assert_eq!(events.next(), json!({"event": "terminated"}));
    assert_eq!(events.next_or_end(), None);
    running.end();
}

#[test]
fn a_start_that_fails_at_any_point_leaves_the_vm_unstarted() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    let mut client = socket.connect();
    let kernel = json!({"kernel_image_path": bare::path("spin-forever")});
    client.ask("PUT", "/boot-source", &kernel.to_string()).assert_done();
    let open = fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap().count() as u64;
    let mut failures = 0;
    // Each time there is one descriptor more, and the start gets further.
    for limit in open.. {
        process::limit_descriptors(running.pid(), limit);
        let answer = client.ask("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
        let state = client.ask("GET", "/", "").json()["state"].clone();
        if answer.status == 204 {
            assert_eq!(state, "Running");
            break;
        }
        assert_eq!(state, "Not started", "with {limit} descriptors: {}", answer.body);
        failures += 1;
        assert!(failures < 200, "{}", answer.body);
    }
    assert!(failures > 5, "{failures}");
    running.wait_for("spinning\n");
}
