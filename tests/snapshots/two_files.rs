//! Snapshots of two files, as Firecracker's clients write them over REST: what may replace what.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Asked;
use crate::support::api::{self, Answer, ApiSocket};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare, namespace, poll, process};

/// A guest that writes to its memory when it is told to, and keeps track of that; and a folder for its snapshots.
struct Writer {
    asked: Asked,
    disk: Disk,
    drive_id: Value,
    folder: TempDir,
}

impl Writer {
    #[track_caller]
    fn new() -> Self {
        Self::of(Rvmm::new(), tempfile::tempdir().unwrap())
    }

    /// One that `rvmm` runs.
    #[track_caller]
    fn of(rvmm: Rvmm, folder: TempDir) -> Self {
        let disk = Disk::new(16, "sector zero here");
        let guest = rvmm.arg("--kernel").arg(bare::path("write-on-demand"));
        let guest = guest.args(["--transport", "mmio", "--track-dirty-pages", "--memory", "64M"]);
        let asked = Asked::launch(guest.disk(&disk.path(), "").stdin(Stdio::piped()), "!");
        let drive_id = asked.socket.get("/vm/config").json()["drives"][0]["drive_id"].clone();
        Self { asked, disk, drive_id, folder }
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
        let answer = self.create_paused(state, memory, kind);
        self.asked.socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
        answer
    }

    fn create_paused(&self, state: &str, memory: &str, kind: &str) -> Answer {
        self.asked.socket.put("/snapshot/create", &self.request(state, memory, kind))
    }

    fn request(&self, state: &str, memory: &str, kind: &str) -> Value {
        json!({"snapshot_path": self.at(state), "mem_file_path": self.at(memory), "snapshot_type": kind})
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
        json!([{"drive_id": self.drive_id, "path_on_host": copy}])
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
    writer.create_paused("b.state", "a.mem", "Diff").assert_done();
    writer.create_paused("c.state", "c.mem", "Full").assert_done();
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
    let links = [("disk", writer.disk.path()), ("kernel", bare::path("write-on-demand"))];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, writer.at(name)).unwrap();
        writer.create("state", name, "Full").assert_refused("is a file of the guest; name another file");
        writer.create(name, "memory", "Full").assert_refused("is a file of the guest; name another file");
    }
    assert_eq!(writer.disk.content(), disk);
    assert!(!writer.at("state").exists() && !writer.at("memory").exists());
}

#[test]
fn a_merge_on_a_full_disk_leaves_the_old_files_and_the_vm() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=64m none '{}'", folder.path().display());
    let Some(rvmm) = namespace::rvmm_after(&mount) else { return };
    let mut writer = Writer::of(rvmm, folder);
    // The folder as rvmm has it.
    let inside = PathBuf::from(format!("/proc/{}/root", writer.asked.running.pid()))
        .join(writer.folder.path().strip_prefix("/").unwrap());
    writer.create("a.state", "a.mem", "Full").assert_done();
    let files = || ["a.state", "a.mem"].map(|name| fs::read(inside.join(name)).unwrap());
    let before = files();
    let filler = fs::File::create(inside.join("filler")).unwrap();
    for free in [0, 4, 12] {
        filler.set_len(0).unwrap();
        filler.write_all_at(&vec![1; (47 - free) << 20], 0).unwrap();
        writer.write();
        writer.create("b.state", "a.mem", "Diff").assert_refused("make room");
        assert!(files() == before, "the old files have changed");
        let mut names: Vec<_> =
            fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.mem", "a.state", "filler"]);
    }
    filler.set_len(0).unwrap();
    // Nothing that was written since is lost.
    writer.asked.pause();
    writer.create_paused("b.state", "a.mem", "Diff").assert_done();
    writer.create_paused("c.state", "c.mem", "Full").assert_done();
    assert!(fs::read(inside.join("a.mem")).unwrap() == fs::read(inside.join("c.mem")).unwrap());
}

#[test]
fn a_merge_that_is_killed_leaves_the_old_snapshot_or_the_new_one() {
    require_kvm!();
    let mut whole = Duration::ZERO;
    for round in 0..10 {
        let mut writer = Writer::new();
        writer.create("a.state", "a.mem", "Full").assert_done();
        writer.write();
        writer.asked.pause();
        let request = writer.request("b.state", "a.mem", "Diff").to_string();
        let mut connection = writer.asked.socket.connect();
        let begin = Instant::now();
        connection.send(api::request("PUT", "/snapshot/create", &request));
        if round == 0 {
            connection.answer().assert_done();
            whole = begin.elapsed();
        } else {
            thread::sleep(whole * round / 9);
        }
        let pid = writer.asked.running.signal(libc::SIGKILL).pid();
        assert!(poll(|| process::state(pid) == 'Z'));
        let state = if writer.load("a.state", "a.mem").1.status == 204 { "a.state" } else { "b.state" };
        writer.assert_loads(state, "a.mem");
    }
}

#[test]
fn the_first_snapshot_of_firecrackers_clients_may_be_a_diff() {
    require_kvm!();
    let mut writer = Writer::new();
    writer.create("a.state", "a.mem", "Diff").assert_done();
    writer.assert_loads("a.state", "a.mem");
    writer.write();
    writer.create("b.state", "b.mem", "Diff").assert_done();
    writer.assert_loads("b.state", "b.mem");
}
