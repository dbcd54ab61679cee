//! Linux guests that are made over the REST socket, as clients of Firecracker make them.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Guest, Report, RootImage, require_linux_guests, resource};
use crate::support::api::{ApiSocket, EventStream};
use crate::support::disk::Disk;
use crate::support::{Rvmm, poll};

fn empty(socket: &ApiSocket) -> crate::support::Running {
    Rvmm::new()
        .args(["--id", &format!("rest-{}", std::process::id())])
        .arg("--api-sock")
        .arg(socket.path())
        .launch()
}

fn start(socket: &ApiSocket) {
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_done();
}

#[test]
fn a_guest_is_made_watched_and_stopped_over_the_socket_and_boots_again_from_its_saved_configuration() {
    require_linux_guests!();
    let socket = ApiSocket::new();
    let folder = tempfile::tempdir().unwrap();
    let (log, metrics) = (folder.path().join("log"), folder.path().join("metrics"));
    let image = RootImage::new();
    let mut running = empty(&socket);
    assert!(poll(|| socket.get("/machine-config").status == 200));
    socket.put("/logger", &json!({"log_path": log, "level": "Info", "show_level": true})).assert_done();
    socket.put("/metrics", &json!({"metrics_path": metrics})).assert_done();
    let machine = json!({"vcpu_count": 2, "mem_size_mib": 192, "smt": true, "track_dirty_pages": false});
    socket.put("/machine-config", &machine).assert_done();
    assert_eq!(socket.get("/machine-config").json()["smt"], true);
    let command = "echo siblings $(cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list); \
                   ls /sys/bus/virtio/devices | wc -l; mount | grep ^/dev/root; echo now; sleep 1000";
    let boot_args = format!("console=ttyS0 reboot=k panic=1 pci=off quiet rvmm.run=\"{command}\"");
    let kernel = resource("RVMM_KERNEL_SMALL");
    socket.put("/boot-source", &json!({"kernel_image_path": kernel, "boot_args": boot_args})).assert_done();
    let drive = json!({"drive_id": "rootfs", "path_on_host": image.path(), "is_root_device": true,
        "is_read_only": false, "cache_type": "Writeback", "io_engine": "Sync",
        "rate_limiter": {"ops": {"size": 1_000_000, "refill_time": 1000}}});
    socket.put("/drives/rootfs", &drive).assert_done();
    let uds = folder.path().join("vsock");
    socket.put("/vsock", &json!({"guest_cid": 3, "uds_path": uds})).assert_done();
    socket.put("/entropy", &json!({})).assert_done();
    start(&socket);
    running.wait_for("now\r\n");
    let printed = running.printed();
    assert!(printed.contains("siblings 0-1\r\n"), "{printed}");
    assert_eq!(socket.get("/").json()["state"], "Running");
    assert!(fs::read_to_string(&log).unwrap().contains(" INFO "));
    socket.put("/actions", &json!({"action_type": "FlushMetrics"})).assert_done();
    let text = fs::read_to_string(&metrics).unwrap();
    let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(line["block"]["rootfs"]["reads"].as_u64().unwrap() > 0, "{line}");

    let mut saved = socket.get("/vm/config").json();
    let pressed = || socket.put("/actions", &json!({"action_type": "SendCtrlAltDel"})).status == 204;
    assert!(poll(pressed));
    assert_eq!(running.end().code(), 0);
    image.assert_clean();

    let boot_args =
        saved["boot-source"]["boot_args"].as_str().unwrap().replace("echo now; sleep 1000", "echo again");
    saved["boot-source"]["boot_args"] = boot_args.into();
    let file = Disk::with_content(saved.to_string().as_bytes());
    let ended = Rvmm::new().arg("--config-file").arg(file.path()).run();
    Report::of(&ended).assert_line("again").assert_line("siblings 0-1");
    image.assert_clean();
}

#[test]
fn a_debian_guest_is_made_over_the_socket() {
    require_linux_guests!();
    let socket = ApiSocket::new();
    let running = empty(&socket);
    let boot_args = "console=ttyS0 reboot=k panic=1 quiet rvmm.run=\"echo made over $(uname -r)\"";
    let source = json!({"kernel_image_path": resource("RVMM_KERNEL_6_12"), "boot_args": boot_args,
        "initrd_path": resource("RVMM_INITRD_6_12")});
    socket.put("/boot-source", &source).assert_done();
    socket.put("/machine-config", &json!({"vcpu_count": 1, "mem_size_mib": 192})).assert_done();
    start(&socket);
    let report = Report::of(&running.end());
    assert!(report.value("made").starts_with("over 6.12"), "{report:?}");
}

#[test]
fn a_panic_of_the_guest_is_told_as_an_event() {
    require_linux_guests!();
    let socket = ApiSocket::new();
    let guest = Guest::debian("6_12").arg("--api-sock").arg(socket.path());
    let command = "echo now; read line; echo c >/proc/sysrq-trigger";
    let mut running = guest.running(command).stdin(Stdio::piped()).launch();
    running.wait_for("now\r\n");
    let mut events = EventStream::open(&socket);
    assert_eq!(events.next(), json!({"event": "state", "state": "Running"}));
    running.send("\n");
    assert_eq!(events.next(), json!({"event": "panic"}));
    assert_eq!(events.next(), json!({"event": "reset"}));
    running.end();
}

#[test]
fn a_guest_answers_questions_while_it_works_its_disk() {
    require_linux_guests!();
    let socket = ApiSocket::new();
    let image = RootImage::new();
    let command = "cd /var; echo busy; i=0; while [ $i -lt 20 ]; do i=$((i+1)); \
                   dd if=/dev/zero of=f bs=64k count=64 conv=fsync 2>/dev/null; done; echo idle";
    let guest = Guest::small().root(&image, "").arg("--api-sock").arg(socket.path());
    let mut running = guest.running(command).launch();
    running.wait_for("busy\r\n");
    let mut connection = socket.connect();
    let mut answers = 0;
    while !running.printed().contains("idle\r\n") {
        assert_eq!(connection.ask("GET", "/vm/config", "").status, 200);
        answers += 1;
    }
    assert!(answers > 20, "{answers}");
    running.end().assert_clean();
}
