//! Disks in snapshots: a VM that goes on takes copies of what its guest writes to along.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::names::Host;
use crate::support::Rvmm;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::process::is_root;

/// A VM called `web` with a writable disk, and a folder for what is made of it.
struct Web {
    host: Host,
    folder: TempDir,
    disk: PathBuf,
}

impl Web {
    #[track_caller]
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::with_disk(folder.path().join("disk.img"), folder)
    }

    #[track_caller]
    fn with_disk(disk: PathBuf, folder: TempDir) -> Self {
        let host = Host::new();
        fs::write(&disk, b"at the snapshot!".repeat(1024)).unwrap();
        let rvmm = host.guest("serial-echo", "web").disk(&disk, ",id=data").arg("--detach");
        rvmm.run().assert_clean();
        host.wait_for_output("web", "ready");
        Self { host, folder, disk }
    }

    fn text(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// What a guest that went on would have written.
    fn write_later(&self) {
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&self.disk, b"after it.       ".repeat(1024)).unwrap();
    }

    /// `rvmm restore` of the snapshot `name`, in the background, with more options.
    fn restore(&self, name: &str, options: &[&str]) -> Rvmm {
        let dir = self.text(name);
        self.host.verb([&["restore", "--detach", "--id", "again"], options, &[&dir]].concat())
    }

    #[track_caller]
    fn assert_restores(&self, name: &str, options: &[&str]) {
        self.restore(name, options).run().assert_clean();
        self.host.wait_for_state("again", "Running");
        self.host.ask(["kill", "again"]);
    }
}

fn content(path: &str) -> String {
    String::from_utf8(fs::read(path).unwrap()[..16].to_vec()).unwrap()
}

#[test]
fn a_vm_that_goes_on_takes_a_copy_of_its_disk_along() {
    require_kvm!();
    let web = Web::new();
    let snapshot = web.text("one");
    web.host.ask(["snapshot", "web", &snapshot, "--disks", "copy"]);
    let copy = format!("{snapshot}/disk-data.img");
    assert_eq!(content(&copy), "at the snapshot!");
    let inspected: Value =
        serde_json::from_str(&web.host.ask(["snapshot", "inspect", "--json", &snapshot])).unwrap();
    assert_eq!(inspected["disks"][0]["included"], "disk-data.img");
    web.write_later();
    web.host.ask(["kill", "web"]);
    let disks = format!("copy={}", web.text("disks"));
    let hints = ["was written to since the snapshot", "--disks copy=FOLDER", "--disk id=data,path=FILE"];
    web.restore("one", &[]).run().assert_refused(1, &hints);
    web.assert_restores("one", &["--disks", &disks]);
    assert_eq!(content(&web.text("disks/data.img")), "at the snapshot!");
    assert_eq!(content(web.disk.to_str().unwrap()), "after it.       ");
    assert_eq!(content(&copy), "at the snapshot!");
    web.restore("one", &["--disks", &disks]).run().assert_refused(1, &["data.img is there already"]);
    web.assert_restores("one", &["--accept-changed-disks"]);
}

#[test]
fn an_original_that_did_not_change_is_used() {
    require_kvm!();
    let web = Web::new();
    web.host.ask(["snapshot", "web", &web.text("one"), "--stop"]);
    assert!(!fs::exists(web.text("one/disk-data.img")).unwrap(), "with --stop the original stays as it is");
    web.assert_restores("one", &[]);
    let disks = format!("copy={}", web.text("disks"));
    web.restore("one", &["--disks", &disks]).run().assert_refused(1, &["includes no disk"]);
}

#[test]
fn clones_have_copies_of_what_the_snapshot_includes() {
    require_kvm!();
    let web = Web::new();
    web.host.ask(["snapshot", "web", &web.text("one"), "--disks", "copy"]);
    web.write_later();
    let (one, copies) = (web.text("one"), web.text("copies"));
    web.host.ask(["clone", "-n", "2", "--id", "c", "--copy-disks", &copies, &one]);
    for name in ["c-1-data", "c-2-data"] {
        assert_eq!(content(&format!("{copies}/{name}")), "at the snapshot!");
    }
}

#[test]
fn a_merged_snapshot_includes_the_disks() {
    require_kvm!();
    let web = Web::new();
    web.host.ask(["snapshot", "web", &web.text("one"), "--disks", "copy"]);
    web.host.ask(["snapshot", "merge", &web.text("one"), &web.text("two")]);
    assert_eq!(content(&web.text("two/disk-data.img")), "at the snapshot!");
    web.write_later();
    web.assert_restores("two", &["--disks", &format!("copy={}", web.text("disks"))]);
}

#[test]
fn where_data_cannot_be_shared_the_alternatives_are_named_and_nothing_is_written() {
    require_kvm!();
    // Never the same file system as that of the snapshot.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let web = Web::with_disk(memory.path().join("disk.img"), tempfile::tempdir().unwrap());
    let one = web.text("one");
    web.host.refused(
        ["snapshot", "web", &one],
        &["drive \"data\"", "reflink", "--disks copy", "--disks none", "--stop"],
    );
    assert_eq!(fs::read_dir(web.folder.path()).unwrap().count(), 0);
    assert_eq!(web.host.listed("web").unwrap()["state"], "Running");
    web.host.ask(["snapshot", "web", &one, "--disks", "none"]);
    web.host.ask(["kill", "web"]);
    web.assert_restores("one", &[]);
}

/// A file system that can share data, in a file; unmounted when the test ends.
struct Xfs(TempDir);

impl Xfs {
    #[track_caller]
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        fs::create_dir(&mount).unwrap();
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = Command::new(program).args(args).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
        };
        run("mkfs.xfs", &["-q".as_ref(), image.as_ref()]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), mount.as_ref()]);
        Self(folder)
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path().join("mount")).status();
    }
}

#[test]
fn data_is_shared_where_the_file_system_can() {
    require_kvm!();
    assert!(is_root(), "mounting a file system takes root");
    let xfs = Xfs::new();
    let folder = tempfile::tempdir_in(xfs.0.path().join("mount")).unwrap();
    let web = Web::with_disk(folder.path().join("disk.img"), folder);
    web.host.ask(["snapshot", "web", &web.text("one")]);
    web.write_later();
    web.host.ask(["kill", "web"]);
    assert_eq!(content(&web.text("one/disk-data.img")), "at the snapshot!");
    web.assert_restores("one", &["--disks", &format!("copy={}", web.text("disks"))]);
}

#[test]
fn a_block_device_is_not_taken_for_unchanged() {
    require_kvm!();
    assert!(is_root(), "a loop device takes root");
    let image = Disk::new(64, "at the snapshot!");
    let output = Command::new("losetup").args(["--find", "--show"]).arg(image.path()).output().unwrap();
    let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(device.starts_with("/dev/loop"), "{device}");
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("one").to_str().unwrap().to_owned();
    host.guest("serial-echo", "web").disk(device.as_ref(), ",id=data").arg("--detach").run().assert_clean();
    host.wait_for_output("web", "ready");
    host.ask(["snapshot", "web", &dir, "--stop"]);
    let refused = host.verb(["restore", "--detach", "--id", "again", &dir]).run();
    let accepted = host.verb(["restore", "--detach", "--id", "again", "--accept-changed-disks", &dir]).run();
    host.ask(["kill", "again"]);
    assert!(Command::new("losetup").args(["--detach", &device]).status().unwrap().success());
    refused.assert_refused(1, &["is a block device, and nothing shows whether it was written to"]);
    accepted.assert_clean();
}
