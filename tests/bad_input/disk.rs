//! Disk images that can't be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{hello, refused};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare, namespace, process};

#[test]
fn a_disk_that_is_no_good_is_refused() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    refused(hello().disk(Path::new("/no/such/disk"), ""), 1, &["disk0", "/no/such/disk", "No such file"]);
    refused(hello().args(["--rootfs", "/no/such/disk"]), 1, &["rootfs", "/no/such/disk", "No such file"]);
    refused(hello().disk(Path::new(folder), ""), 1, &["disk0", folder, "directory"]);
    for size in [1, 511, 513] {
        let odd = Disk::with_content(&vec![0; size]);
        refused(hello().disk(&odd.path(), ""), 1, &["disk0", odd.path().to_str().unwrap(), "512"]);
    }
}

#[test]
fn a_disk_without_the_right_to_write_is_refused_unless_readonly() {
    require_kvm!();
    let disk = Disk::new(8, "");
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o444)).unwrap();
    // Root may write to every file by this capability.
    let hello = || {
        if !process::is_root() {
            return hello();
        }
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set=-dac_override",
            "--inh-caps=-dac_override",
            env!("CARGO_BIN_EXE_rvmm"),
        ]);
        Rvmm::within(command).arg("--kernel").arg(bare::path("hello"))
    };
    refused(hello().disk(&disk.path(), ""), 1, &["disk0", disk.path().to_str().unwrap(), "read-only"]);
    hello().disk(&disk.path(), ",readonly").run().assert_clean();
}

#[test]
fn a_disk_on_a_read_only_file_system_is_refused_unless_readonly() {
    require_kvm!();
    let disk = Disk::new(8, "");
    let path = disk.path();
    let folder = path.parent().unwrap().display();
    let script = format!("mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}");
    let hello = || Some(namespace::rvmm_after(&script)?.arg("--kernel").arg(bare::path("hello")));
    let Some(rvmm) = hello() else { return };
    refused(rvmm.disk(&path, ""), 1, &["disk0", path.to_str().unwrap(), "read-only"]);
    hello().unwrap().disk(&path, ",readonly").run().assert_clean();
}

#[test]
fn a_disk_that_another_vm_writes_to_is_refused() {
    require_kvm!();
    let disk = Disk::new(8, "");
    let path = disk.path();
    let mut first = Rvmm::guest("hlt-forever").disk(&path, "").launch();
    first.wait_for("halted");
    for options in ["", ",readonly"] {
        refused(hello().disk(&path, options), 1, &["disk0", path.to_str().unwrap(), "another"]);
    }
    first.signal(libc::SIGTERM).pid();
    first.end();
    hello().disk(&path, "").run().assert_clean();
}

#[test]
fn a_read_only_disk_can_be_shared_but_not_with_a_writer() {
    require_kvm!();
    let disk = Disk::new(8, "");
    let path = disk.path();
    let mut first = Rvmm::guest("hlt-forever").disk(&path, ",readonly").launch();
    first.wait_for("halted");
    hello().disk(&path, ",readonly").run().assert_clean();
    refused(hello().disk(&path, ""), 1, &["disk0", path.to_str().unwrap(), "another"]);
}

#[test]
fn one_name_for_two_disks_is_refused() {
    let (one, two) = (Disk::new(8, ""), Disk::new(8, ""));
    let rvmm = hello().disk(&one.path(), ",id=data").disk(&two.path(), ",id=data");
    refused(rvmm, 1, &["\"data\"", "twice"]);
}

#[test]
fn one_image_for_two_disks_is_refused() {
    require_kvm!();
    let disk = Disk::new(8, "");
    refused(hello().disk(&disk.path(), "").disk(&disk.path(), ""), 1, &[disk.path().to_str().unwrap()]);
}

#[test]
fn more_disks_than_interrupts_are_refused() {
    let disk = Disk::new(8, "");
    let rvmm = (0..40).fold(hello(), |rvmm, _| rvmm.disk(&disk.path(), ",readonly"));
    refused(rvmm, 1, &["devices", "18"]);
}

#[test]
fn the_console_and_the_log_do_not_overwrite_what_the_guest_is_made_of() {
    require_kvm!();
    let disk = Disk::new(8, "precious");
    let path = disk.path().display().to_string();
    let rvmm = || hello().disk(&disk.path(), "");
    refused(rvmm().args(["--console", &format!("file={path}")]), 1, &["console", &path]);
    refused(rvmm().args(["--log-file", &path]), 1, &["--log-file", &path]);
    assert_eq!(disk.content().len(), 8 * 512);
    assert!(disk.content().starts_with(b"precious"));
}

#[test]
fn a_console_file_keeps_its_content_when_there_is_no_vm() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    fs::write(&old, "kept").unwrap();
    for path in [&old, &new] {
        let console = format!("file={}", path.display());
        refused(
            Rvmm::guest("hello").args(["--console", &console, "--disk", "path=/nowhere"]),
            1,
            &["/nowhere"],
        );
    }
    assert_eq!(fs::read_to_string(&old).unwrap(), "kept");
    assert!(!new.exists());
}

#[test]
fn one_image_twice_in_one_vm_is_refused_by_the_names_of_both_drives() {
    require_kvm!();
    let disk = Disk::new(8, "shared");
    let path = disk.path();
    let twice = |first: &str, second: &str| hello().disk(&path, first).disk(&path, second);
    let words = ["\"a\"", "\"b\"", path.to_str().unwrap(), "read-only"];
    refused(twice(",id=a", ",id=b"), 1, &words);
    refused(twice(",id=a,readonly", ",id=b"), 1, &words);
    assert_eq!(twice(",id=a,readonly", ",id=b,readonly").run().code(), 0);
}
