//! Folders that are no snapshots, and places where none can be written.

use std::fs;

use serde_json::json;

use super::Asked;
use super::verbs::Saved;
use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare};

#[test]
fn what_is_no_snapshot_is_refused_by_its_name_and_nothing_starts() {
    require_kvm!();
    let saved = Saved::stopped("one");
    let host = &saved.host;
    let refused = |what: &str, words: &[&str]| {
        for verb in
            [&["restore"][..], &["snapshot", "inspect"], &["snapshot", "verify"], &["clone", "-n", "2"]]
        {
            let dir = saved.text(what);
            host.refused([verb, &[&dir]].concat(), words);
        }
        assert_eq!(host.names(), Vec::<String>::new());
    };
    refused("none", &["none is no snapshot: there is no file \"state\" in it\n"]);
    fs::create_dir(saved.path("empty")).unwrap();
    refused("empty", &["empty is no snapshot: there is no file \"state\" in it\n"]);
    fs::write(saved.path("file"), "text").unwrap();
    refused("file", &["file"]);
    let copy = |name: &str| {
        fs::create_dir(saved.path(name)).unwrap();
        for file in fs::read_dir(saved.path("one")).unwrap().flatten() {
            fs::copy(file.path(), saved.path(name).join(file.file_name())).unwrap();
        }
    };
    copy("text");
    fs::write(saved.path("text").join("state"), "This is no state.").unwrap();
    host.refused(["restore", &saved.text("text")], &["state"]);
    host.refused(["snapshot", "verify", &saved.text("text")], &["state"]);
    copy("short");
    fs::File::options().write(true).open(saved.path("short").join("memory")).unwrap().set_len(4096).unwrap();
    host.refused(["restore", &saved.text("short")], &["memory"]);
    copy("alone");
    fs::remove_file(saved.path("alone").join("memory")).unwrap();
    host.refused(["restore", &saved.text("alone")], &["memory"]);
    host.refused(["clone", "-n", "2", &saved.text("alone")], &["alone-", "memory"]);
    assert_eq!(host.names(), Vec::<String>::new());
}

#[test]
fn every_byte_of_the_state_matters() {
    require_kvm!();
    let saved = Saved::stopped("one");
    let state = saved.path("one").join("state");
    let good = fs::read(&state).unwrap();
    let places = (0..good.len()).step_by(good.len() / 24 + 1).chain([good.len() - 1]);
    for place in places {
        let mut bad = good.clone();
        bad[place] ^= 0x10;
        fs::write(&state, bad).unwrap();
        saved.host.refused(["restore", &saved.text("one")], &["state"]);
        fs::write(&state, &good[..place]).unwrap();
        saved.host.refused(["restore", &saved.text("one")], &["state"]);
    }
}

#[test]
fn a_folder_that_is_there_or_cannot_be_made_is_refused_and_the_vm_goes_on() {
    require_kvm!();
    let saved = Saved::echo();
    saved.snapshot("one", &[]);
    let before = fs::read(saved.path("one").join("state")).unwrap();
    for (dir, words) in [
        (saved.text("one"), &["one"][..]),
        (saved.text("none/one"), &["a folder that is not there"]),
        ("/proc/rvmm-snapshot".to_owned(), &["rvmm-snapshot"]),
    ] {
        let ended = saved.host.refused(["snapshot", "web", &dir], &["cannot snapshot web"]);
        ended.assert_complaint(words);
        saved.assert_echoes("web");
    }
    assert_eq!(fs::read(saved.path("one").join("state")).unwrap(), before);
    assert_eq!(
        fs::read_dir(saved.path("one").parent().unwrap()).unwrap().count(),
        1,
        "nothing is left behind"
    );
}

#[test]
fn over_rest_a_vm_has_to_be_paused_and_a_loaded_one_to_be_new() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let socket = ApiSocket::new();
    let _running = Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    let create = json!({"snapshot_path": at("one")});
    socket.put("/snapshot/create", &create).assert_refused("the VM is not started");
    socket.put("/boot-source", &json!({"kernel_image_path": bare::path("hlt-forever")})).assert_done();
    socket.put("/snapshot/load", &create).assert_refused("configured");
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_done();
    socket.put("/snapshot/create", &create).assert_refused("the VM is running");
    assert!(!at("one").exists());
    socket.patch("/vm", &json!({"state": "Paused"})).assert_done();
    socket.put("/snapshot/create", &create).assert_done();
    socket.put("/snapshot/create", &create).assert_refused("one");
    let diff = json!({"snapshot_path": at("two"), "snapshot_type": "Diff"});
    socket.put("/snapshot/create", &diff).assert_refused("track");
    let files = json!({"snapshot_path": at("vm.state"), "mem_file_path": at("vm.memory")});
    socket.put("/snapshot/create", &files).assert_done();
    assert!(at("vm.state").exists() && at("vm.memory").exists());
}

#[test]
fn a_client_that_does_not_wait_for_its_snapshot_does_no_harm() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let socket = ApiSocket::new();
    let _running = Rvmm::guest("serial-echo").arg("--api-sock").arg(socket.path()).launch();
    assert!(crate::support::poll(|| socket.get("/rvmm/console").body.contains("ready")));
    for number in 0..5 {
        let path = folder.path().join(number.to_string());
        let body = json!({"snapshot_path": path, "live": true}).to_string();
        let mut connection = socket.connect();
        connection.send(crate::support::api::request("PUT", "/snapshot/create", &body));
        let begun = || fs::read_dir(folder.path()).unwrap().count() > number;
        assert!(crate::support::poll(begun));
        drop(connection);
        let written = || socket.get("/rvmm/metrics.json").json()["vmm"]["snapshots"] == number + 1;
        assert!(crate::support::poll(written));
        assert!(path.join("manifest.json").exists());
    }
    assert_eq!(socket.get("/").json()["state"], "Running");
}

#[test]
fn a_vm_whose_memory_file_was_cut_says_so() {
    require_kvm!();
    let saved = Asked::guest("count-forever", "00000010");
    let snapshot = saved.snapshot(&json!({"live": true}));
    let mut restored = snapshot.restore().launch();
    restored.wait_for_times(10, "\n");
    let memory = fs::File::options().write(true).open(snapshot.path().join("memory")).unwrap();
    memory.set_len(4096).unwrap();
    let ended = restored.end();
    ended.assert_complaint(&["file behind its memory was cut", "restore from a copy that is whole"]);
    assert_eq!(ended.code(), 1, "{ended:#?}");
}
