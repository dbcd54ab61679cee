//! What clients do, in their order, with a client that is not ours: curl.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::configure::empty;
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{bare, poll};

/// What curl prints, and the status.
#[track_caller]
fn curl(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "--unix-socket"]).arg(socket);
    curl.args(["-X", method, "-H", "Accept: application/json", "-w", "\n%{http_code}"]);
    if let Some(body) = body {
        curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let output = curl.arg(format!("http://localhost{path}")).stdin(Stdio::null()).output();
    let output = output.expect("curl is missing: resources/setup installs it");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (body, status) = stdout.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn a_vm_is_made_started_paused_and_ended_with_curl() {
    require_kvm!();
    let socket = ApiSocket::new();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let disk = Disk::new(8, "");
    let mut running = empty(&socket);
    let path = socket.path();
    let get = |what: &str| -> Value {
        let (status, body) = curl(&path, "GET", what, None);
        assert_eq!(status, 200, "{what}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    let write = |method: &str, what: &str, body: Value| {
        assert_eq!(curl(&path, method, what, Some(&body)), (204, String::new()), "{method} {what} {body}");
    };
    // Until it answers.
    assert!(poll(|| curl(&path, "GET", "/machine-config", None).0 == 200));
    write("PUT", "/logger", json!({"log_path": file("log"), "level": "Info"}));
    write("PUT", "/metrics", json!({"metrics_path": file("metrics")}));
    write("PUT", "/machine-config", json!({"vcpu_count": 1, "mem_size_mib": 64}));
    assert_eq!(get("/machine-config")["mem_size_mib"], 64);
    write("PUT", "/boot-source", json!({"kernel_image_path": bare::path("spin-forever")}));
    let drive = json!({"drive_id": "data", "is_root_device": false, "path_on_host": disk.path()});
    write("PUT", "/drives/data", drive);
    let net = json!({"iface_id": "eth0", "user": {}});
    write("PUT", "/network-interfaces/eth0", net);
    write("PUT", "/vsock", json!({"guest_cid": 3, "uds_path": file("vsock")}));
    write("PUT", "/mmds/config", json!({"network_interfaces": ["eth0"]}));
    write("PUT", "/actions", json!({"action_type": "InstanceStart"}));
    running.wait_for("spinning\n");
    write("PUT", "/mmds", json!({"latest": {"meta-data": {"instance-id": "i-1"}}}));
    assert_eq!(get("/mmds")["latest"]["meta-data"]["instance-id"], "i-1");
    write("PATCH", "/vm", json!({"state": "Paused"}));
    assert_eq!(get("/")["state"], "Paused");
    write("PATCH", "/vm", json!({"state": "Resumed"}));
    assert_eq!(get("/")["state"], "Running");
    let (status, body) = curl(&path, "PUT", "/actions", Some(&json!({"action_type": "InstanceStart"})));
    assert!(status == 400 && body.contains("the VM is running"), "{status} {body}");
    write("PUT", "/actions", json!({"action_type": "FlushMetrics"}));
    assert!(fs::read_to_string(file("metrics")).unwrap().contains("\"vcpu\""));
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
    assert!(!path.exists());
}
