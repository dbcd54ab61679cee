//! Snapshots of two files, as Firecracker's clients write them over REST: what may replace what.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Asked;
use crate::support::Rvmm;
use crate::support::api::{Answer, ApiSocket};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

/// A guest that writes to its memory when it is told to, and keeps track of that; and a folder for its snapshots.
struct Writer {
    asked: Asked,
    disk: Disk,
    folder: TempDir,
}

impl Writer {
    #[track_caller]
    fn new() -> Self {
        let disk = Disk::new(16, "sector zero here");
        let guest = Rvmm::guest("write-on-demand").args(["--track-dirty-pages", "--memory", "64M"]);
        let asked = Asked::launch(guest.disk(&disk.path(), "").stdin(Stdio::piped()), "!");
        Self { asked, disk, folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has the guest write to 16 pages.
    #[track_caller]
    fn write(&mut self) {
        let before = self.asked.running.printed().len();
        self.asked.running.send("x").wait_for_times(before + 1, "!");
    }

    /// PUT `/snapshot/create` to two files in the folder, of the paused VM.
    #[track_caller]
    fn create(&self, state: &str, memory: &str, kind: &str) -> Answer {
        self.asked.pause();
        let files =
            json!({"snapshot_path": self.at(state), "mem_file_path": self.at(memory), "snapshot_type": kind});
        let answer = self.asked.socket.put("/snapshot/create", &files);
        self.asked.socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
        answer
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }

    /// PUT `/snapshot/load` into a new process.
    #[track_caller]
    fn load(&self, state: &str, memory: &str) -> (Asked, Answer) {
        let socket = ApiSocket::new();
        let running = Rvmm::new().arg("--api-sock").arg(socket.path()).stdin(Stdio::piped()).launch();
        let body = json!({"snapshot_path": self.at(state), "mem_file_path": self.at(memory), "resume_vm": true,
            "accept_changed_drives": true, "drive_overrides": self.disk_copy()});
        let answer = socket.put("/snapshot/load", &body);
        (Asked { running, socket }, answer)
    }

    fn disk_copy(&self) -> Value {
        let copy = self.at("disk-copy");
        fs::copy(self.disk.path(), &copy).unwrap();
        let config = self.asked.socket.get("/vm/config").json();
        json!([{"drive_id": config["drives"][0]["drive_id"], "path_on_host": copy}])
    }

    /// The guest of these files goes on: it writes when it is told to.
    #[track_caller]
    fn assert_loads(&self, state: &str, memory: &str) {
        let (mut loaded, answer) = self.load(state, memory);
        answer.assert_done();
        loaded.running.send("x").wait_for("!");
    }
}

#[test]
fn a_diff_over_its_bases_memory_is_all_of_memory() {
    require_kvm!();
    let mut writer = Writer::new();
    writer.create("a.state", "a.mem", "Full").assert_done();
    let (first, mut inode) = (writer.bytes("a.mem"), fs::File::open(writer.at("a.mem")).unwrap());
    writer.write();
    writer.create("b.state", "a.mem", "Diff").assert_done();
    let merged = writer.bytes("a.mem");
    assert_ne!(merged, first);
    let non_zero = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 0).count();
    assert!(non_zero(&merged) + 4096 > non_zero(&first), "{} after {}", non_zero(&merged), non_zero(&first));
    // A VM that maps the old file keeps it.
    let mut old = Vec::new();
    inode.read_to_end(&mut old).unwrap();
    assert!(old == first, "the old file was written to");
    writer.assert_loads("b.state", "a.mem");
    let (_, answer) = writer.load("a.state", "a.mem");
    answer.assert_refused("is the memory of snapshot");
    // And again, over what is a full snapshot by now.
    writer.write();
    writer.create("b.state", "a.mem", "Diff").assert_done();
    writer.assert_loads("b.state", "a.mem");
}

#[test]
fn a_merged_diff_has_the_memory_of_a_full_snapshot() {
    require_kvm!();
    let mut writer = Writer::new();
    writer.create("a.state", "a.mem", "Full").assert_done();
    for _ in 0..3 {
        writer.write();
    }
    writer.asked.pause();
    let create = |state: &str, memory: &str, kind: &str| {
        let files = json!({"snapshot_path": writer.at(state), "mem_file_path": writer.at(memory), "snapshot_type": kind});
        writer.asked.socket.put("/snapshot/create", &files).assert_done();
    };
    create("b.state", "a.mem", "Diff");
    create("c.state", "c.mem", "Full");
    assert!(writer.bytes("a.mem") == writer.bytes("c.mem"), "the memories differ");
}

#[test]
fn a_diff_over_a_diff_has_the_pages_of_both() {
    require_kvm!();
    let mut writer = Writer::new();
    writer.create("a.state", "a.mem", "Full").assert_done();
    writer.write();
    writer.create("b.state", "b.mem", "Diff").assert_done();
    writer.write();
    writer.create("b.state", "b.mem", "Diff").assert_done();
    writer.assert_loads("b.state", "b.mem");
    writer.assert_loads("a.state", "a.mem");
}

#[test]
fn files_that_the_last_snapshot_needs_are_not_replaced() {
    require_kvm!();
    let mut writer = Writer::new();
    writer.create("a.state", "a.mem", "Full").assert_done();
    writer.write();
    // The state of its base, beside a memory file of its own.
    writer.create("a.state", "b.mem", "Diff").assert_refused("a.state, which this VM's last snapshot needs");
    writer
        .create("b.state", "a.state", "Diff")
        .assert_refused("a.state, which this VM's last snapshot needs");
    writer.create("b.state", "b.mem", "Diff").assert_done();
    let before = ["a.state", "a.mem", "b.state", "b.mem"].map(|name| writer.bytes(name));
    fs::hard_link(writer.at("a.mem"), writer.at("hard")).unwrap();
    std::os::unix::fs::symlink(writer.at("a.mem"), writer.at("soft")).unwrap();
    for (state, memory, kind) in [
        ("c.state", "a.mem", "Full"),
        ("c.state", "a.mem", "Diff"),
        ("c.state", "hard", "Full"),
        ("c.state", "soft", "Diff"),
        ("a.state", "c.mem", "Full"),
        ("b.state", "c.mem", "Diff"),
    ] {
        writer.create(state, memory, kind).assert_refused("which this VM's last snapshot needs");
    }
    assert!(["a.state", "a.mem", "b.state", "b.mem"].map(|name| writer.bytes(name)) == before);
    assert!(!writer.at("c.state").exists() && !writer.at("c.mem").exists());
    writer.assert_loads("b.state", "b.mem");
    // The upper one can be replaced by a full one, which needs neither.
    writer.create("b.state", "b.mem", "Full").assert_done();
    writer.assert_loads("b.state", "b.mem");
}

#[test]
fn files_of_the_guest_and_of_rvmm_are_not_replaced() {
    require_kvm!();
    let writer = Writer::new();
    let disk = writer.disk.content();
    let links = [("disk", writer.disk.path()), ("kernel", crate::support::bare::path("write-on-demand"))];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, writer.at(name)).unwrap();
        writer.create("state", name, "Full").assert_refused("is a file of the guest; name another file");
        writer.create(name, "memory", "Full").assert_refused("is a file of the guest; name another file");
    }
    assert_eq!(writer.disk.content(), disk);
    assert!(!writer.at("state").exists() && !writer.at("memory").exists());
}
