//! The REST socket of a running VM.

mod clients;
mod configure;
mod console;
mod cpu_config;
mod curl;
mod load;
mod metadata;
mod metrics;
mod openapi;
mod pause;
mod socket;

use serde_json::json;

use crate::support::Rvmm;
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

/// The bare guest `name`, with a socket.
fn guest(name: &str, socket: &ApiSocket) -> Rvmm {
    Rvmm::guest(name).arg("--api-sock").arg(socket.path())
}

#[test]
fn a_vm_says_who_it_is_and_what_it_is_made_of() {
    require_kvm!();
    let socket = ApiSocket::new();
    let disk = Disk::new(8, "");
    let id = format!("api-{}", std::process::id());
    let running = guest("hlt-forever", &socket)
        .args(["--id", &id, "--memory", "32M"])
        .disk(&disk.path(), ",id=data")
        .launch();
    let instance = socket.get("/").json();
    assert_eq!(instance["id"], id.as_str());
    assert_eq!(instance["state"], "Running");
    assert_eq!(instance["vmm_version"], env!("CARGO_PKG_VERSION"));
    assert!(socket.get("/version").json()["firecracker_version"].is_string());
    let machine = socket.get("/machine-config").json();
    assert_eq!((&machine["vcpu_count"], &machine["mem_size_mib"]), (&json!(1), &json!(32)));
    let config = socket.get("/vm/config").json();
    assert_eq!(config["machine-config"], machine);
    assert_eq!(config["drives"][0]["drive_id"], "data");
    assert!(config["boot-source"]["kernel_image_path"].as_str().unwrap().contains("hlt-forever"));
    drop(running);
}

#[test]
fn the_configuration_of_a_running_vm_is_a_configuration_file() {
    require_kvm!();
    let socket = ApiSocket::new();
    let disk = Disk::new(8, "");
    let mut running = guest("spin-forever", &socket).disk(&disk.path(), "").launch();
    running.wait_for("spinning\n");
    let file = Disk::with_content(socket.get("/vm/config").body.as_bytes());
    running.signal(libc::SIGTERM);
    running.end();
    let mut again = Rvmm::new().arg("--config-file").arg(file.path()).launch();
    again.wait_for("spinning\n");
}

#[test]
fn what_a_running_vm_cannot_do_is_refused_with_its_state() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_refused("the VM is running");
    socket.put("/boot-source", &json!({"kernel_image_path": "x"})).assert_refused("the VM is running");
    socket.patch("/drives/a", &json!({"drive_id": "a"})).assert_refused("there is no drive \"a\"");
    socket.patch("/network-interfaces/a", &json!({"iface_id": "a"})).assert_refused("no network interface");
    socket.patch("/balloon", &json!({"amount_mib": 1})).assert_refused("no balloon");
    socket.get("/balloon").assert_refused("no balloon");
    socket.patch("/vm", &json!({"state": "Asleep"})).assert_refused("unknown variant `Asleep`");
    socket.get("/nowhere").assert_refused("Invalid request method and/or path: GET /nowhere.");
    socket.put("/actions", &json!({"action_type": "SendCtrlAltDel"})).assert_refused("keyboard");
}

#[test]
fn a_drive_that_is_changed_while_the_guest_runs_is_changed_in_the_configuration() {
    require_kvm!();
    let socket = ApiSocket::new();
    let (first, second) = (Disk::new(8, ""), Disk::new(16, ""));
    let running = guest("hlt-forever", &socket).disk(&first.path(), ",id=data").launch();
    let drive = || socket.get("/vm/config").json()["drives"][0].clone();
    let limits = json!({"ops": {"size": 10, "refill_time": 1000}});
    socket.patch("/drives/data", &json!({"drive_id": "data", "rate_limiter": limits})).assert_done();
    assert_eq!(drive()["rate_limiter"], limits);
    let update = json!({"drive_id": "data", "path_on_host": second.path()});
    socket.patch("/drives/data", &update).assert_done();
    assert_eq!(drive()["path_on_host"], json!(second.path()));
    assert_eq!(drive()["rate_limiter"], limits);
    // The old file is free, the new one is taken.
    let other = Rvmm::guest("hello").disk(&first.path(), "");
    other.run().assert_clean();
    let other = Rvmm::guest("hello").disk(&second.path(), "");
    assert_eq!(other.run().code(), 1);

    let missing = json!({"drive_id": "data", "path_on_host": "/nowhere/at/all"});
    socket.patch("/drives/data", &missing).assert_refused("/nowhere/at/all");
    assert_eq!(drive()["path_on_host"], json!(second.path()));
    drop(running);
}

#[test]
fn a_balloon_is_read_and_changed_while_the_guest_runs() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).arg("--balloon").launch();
    assert_eq!(socket.get("/balloon").json()["amount_mib"], 0);
    socket.patch("/balloon", &json!({"amount_mib": 16})).assert_done();
    assert_eq!(socket.get("/balloon").json()["amount_mib"], 16);
    assert_eq!(socket.get("/vm/config").json()["balloon"]["amount_mib"], 16);
    socket.patch("/balloon", &json!({"amount_mib": 100_000})).assert_refused("100000 MiB");
    socket.get("/balloon/statistics").assert_refused("stats_polling_interval_s");
    socket.patch("/balloon/statistics", &json!({"stats_polling_interval_s": 1})).assert_done();
    assert_eq!(socket.get("/balloon/statistics").json()["target_mib"], 16);
}
