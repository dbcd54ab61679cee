//! `rvmm restore`: a VM as a run is one, and what can be said otherwise.

use std::process::Stdio;

use serde_json::json;

use super::verbs::Saved;
use crate::support::Rvmm;
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

#[test]
fn a_restored_vm_has_its_console_here_and_ends_as_a_run_does() {
    require_kvm!();
    let saved = Saved::stopped("one");
    let restore = || saved.host.verb(["restore", &saved.text("one")]).stdin(Stdio::piped()).launch();
    let mut echo = restore();
    echo.send("hello").wait_for("hello").send("q");
    assert_eq!(echo.end().code(), 0, "it powered off");
    let mut echo = restore();
    echo.send("x").wait_for("x").signal(libc::SIGTERM);
    assert_eq!(echo.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn a_restored_vm_has_a_name_of_its_own_and_the_verbs_take_it() {
    require_kvm!();
    let saved = Saved::echo();
    saved.snapshot("one", &[]);
    let dir = saved.text("one");
    assert_eq!(saved.host.ask(["restore", &dir, "--detach", "--id", "web-2"]), "web-2\n");
    assert_eq!(saved.host.names(), ["web", "web-2"]);
    saved.assert_echoes("web-2");
    assert_eq!(saved.host.json(["inspect", "web-2"])["instance"]["id"], "web-2");
    saved.host.refused(["restore", &dir, "--id", "web-2"], &["--id web-2", "is running"]);
    saved.host.refused(["restore", &dir, "--id", "web", "--detach"], &["--id web", "is running"]);
    saved.assert_echoes("web");
    let made_up = saved.host.ask(["restore", &dir, "--detach"]);
    saved.assert_echoes(made_up.trim_end());
}

#[test]
fn a_guest_that_is_restored_paused_stays_so_until_it_is_resumed() {
    require_kvm!();
    let saved = Saved::stopped("one");
    saved.host.ask(["restore", &saved.text("one"), "--paused", "--detach", "--id", "w"]);
    assert_eq!(saved.host.listed("w").unwrap()["state"], "Paused");
    saved.host.ask(["resume", "w"]);
    saved.assert_echoes("w");
}

#[test]
fn a_restored_vm_listens_and_writes_its_console_where_it_is_told() {
    require_kvm!();
    let saved = Saved::stopped("one");
    let (socket, output) = (ApiSocket::new(), saved.path("output"));
    let console = format!("file={}", output.display());
    let restore = saved.host.verb([
        "restore",
        &saved.text("one"),
        "--console",
        &console,
        "--track-dirty-pages",
        "--prefault",
    ]);
    let _running = restore.arg("--api-sock").arg(socket.path()).launch();
    assert_eq!(socket.get("/").json()["state"], "Running");
    socket.connect().ask("PUT", "/rvmm/console", "written").assert_done();
    let written = || std::fs::read_to_string(&output).is_ok_and(|text| text.contains("written"));
    assert!(crate::support::poll(written));
    assert_eq!(socket.get("/machine-config").json()["track_dirty_pages"], json!(true));
}

#[test]
fn a_disk_that_was_written_to_since_can_be_accepted_and_one_of_another_size_cannot() {
    require_kvm!();
    let saved = Saved::echo();
    let disk = Disk::new(2048, "original");
    let guest = saved.host.of(Rvmm::guest("serial-echo")).disk(&disk.path(), ",id=data");
    guest.args(["--id", "disk", "--detach"]).run().assert_clean();
    saved.host.wait_for_output("disk", "ready");
    let dir = saved.text("one");
    saved.host.ask(["snapshot", "disk", &dir, "--stop"]);
    let file = std::fs::File::options().write(true).open(disk.path()).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let written = ["drive \"data\"", "was written to since", "--disk id=data", "--accept-changed-disks"];
    saved.host.refused(["restore", &dir], &written);
    file.set_len(2 << 20).unwrap();
    let resized = saved.host.refused(["restore", &dir], &["drive \"data\"", "instead of", "--disk id=data"]);
    assert!(!resized.stderr.contains("accept"), "{}", resized.stderr);
    saved.host.refused(["restore", &dir, "--accept-changed-disks"], &["data"]);
}

#[test]
fn a_disk_can_have_another_engine_and_memory_other_pages() {
    require_kvm!();
    let saved = Saved::echo();
    let disk = Disk::new(2048, "original");
    let guest = saved.host.of(Rvmm::guest("serial-echo"));
    let guest = guest.disk(&disk.path(), ",id=data,engine=io_uring");
    guest.args(["--id", "disk", "--detach"]).run().assert_clean();
    saved.host.wait_for_output("disk", "ready");
    let dir = saved.text("one");
    saved.host.ask(["snapshot", "disk", &dir, "--stop"]);
    let restore = ["restore", &dir, "--disk", "id=data,engine=sync", "--huge-pages", "transparent"];
    let options = ["--id", "again", "--detach"];
    saved.host.verb(restore.into_iter().chain(options)).run().assert_clean();
    let config = saved.host.json(["config", "again"]);
    assert_eq!(config["drives"][0]["io_engine"], "Sync");
    assert_eq!(config["drives"][0]["path_on_host"], disk.path().to_str().unwrap());
    assert_eq!(config["machine-config"]["huge_pages"], "Transparent");
    saved.host.ask(["kill", "again"]);
    // An engine says nothing of the file.
    let file = std::fs::File::options().write(true).open(disk.path()).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    saved.host.refused(restore, &["drive \"data\"", "was written to since"]);
}

#[test]
fn a_snapshot_is_loaded_over_rest_into_a_process_without_a_guest() {
    require_kvm!();
    let saved = Saved::stopped("one");
    let socket = ApiSocket::new();
    let _running = Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    socket.put("/logger", &json!({"level": "Info"})).assert_done();
    socket.put("/snapshot/load", &json!({"snapshot_path": saved.text("none")})).assert_refused("none");
    let load = json!({"snapshot_path": saved.text("one"), "resume_vm": true});
    socket.put("/snapshot/load", &load).assert_done();
    assert_eq!(socket.get("/").json()["state"], "Running");
    socket.connect().ask("PUT", "/rvmm/console", "ping").assert_done();
    assert!(crate::support::poll(|| socket.get("/rvmm/console").body.contains("ping")));
    socket.put("/snapshot/load", &load).assert_refused("the VM is running");
}
