//! `rvmm clone`: several VMs from one snapshot.

use std::fs;
use std::time::UNIX_EPOCH;

use super::verbs::Saved;
use crate::support::Rvmm;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::poll;

#[test]
fn clones_run_side_by_side_and_each_is_reported() {
    require_kvm!();
    let saved = Saved::stopped("web.snap");
    let dir = saved.text("web.snap");
    let table = saved.host.ask(["clone", &dir, "-n", "3"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("ID ") && lines[4].starts_with("3 VMs in "), "{table}");
    assert_eq!(saved.host.names(), ["web-snap-1", "web-snap-2", "web-snap-3"]);
    for id in saved.host.names() {
        saved.assert_echoes(&id);
    }
    let report = saved.host.json(["clone", &dir, "-n", "2", "--id", "w", "--json", "--", "--paused"]);
    for (vm, id) in report.as_array().unwrap().iter().zip(["w-1", "w-2"]) {
        let listed = saved.host.listed(id).unwrap();
        assert_eq!((&vm["id"], &vm["pid"]), (&id.into(), &listed["pid"]));
        assert_eq!(listed["state"], "Paused");
        assert!(vm["memory"]["private"].as_u64().unwrap() < 4 << 20, "{vm}");
    }
}

#[test]
fn when_one_cannot_be_started_none_is_left() {
    require_kvm!();
    let saved = Saved::stopped("one");
    let dir = saved.text("one");
    saved.host.ask(["restore", &dir, "--detach", "--id", "w-3"]);
    saved.host.refused(["clone", &dir, "-n", "5", "--id", "w"], &["w-3", "is running"]);
    assert!(poll(|| saved.host.names() == ["w-3"]));
    saved.assert_echoes("w-3");
}

#[test]
fn clones_write_to_copies_of_a_disk_and_to_nothing_without_them() {
    require_kvm!();
    let saved = Saved::echo();
    let disk = Disk::new(2048, "original");
    let host = &saved.host;
    let vsock = format!("cid=3,uds={}", saved.text("v.sock"));
    let guest = host.of(Rvmm::guest("serial-echo")).disk(&disk.path(), ",id=data").args(["--vsock", &vsock]);
    guest.args(["--id", "disk", "--detach"]).run().assert_clean();
    host.wait_for_output("disk", "ready");
    let (dir, copies) = (saved.text("one"), saved.text("copies"));
    host.ask(["snapshot", "disk", &saved.text("goes-on"), "--disks", "none"]);
    let goes_on = saved.text("goes-on");
    let path = disk.path();
    let path = path.to_str().unwrap();
    host.refused(["clone", &goes_on, "-n", "1", "--copy-disks", &copies], &["\"data\"", path, "is in use"]);
    assert!(!saved.path("copies").exists());
    host.ask(["snapshot", "disk", &dir, "--stop"]);
    host.refused(["clone", &dir, "-n", "2"], &["\"data\"", disk.path().to_str().unwrap(), "--copy-disks"]);
    host.ask(["clone", &dir, "-n", "2", "--id", "c", "--copy-disks", &copies]);
    for number in ["1", "2"] {
        let copy = saved.path("copies").join(format!("c-{number}-data"));
        assert_eq!(fs::read(&copy).unwrap(), disk.content());
        let config = host.json(["config", &format!("c-{number}")]);
        assert_eq!(config["drives"][0]["path_on_host"], copy.to_str().unwrap());
        assert!(saved.path(&format!("v.sock-{number}")).exists());
        saved.assert_echoes(&format!("c-{number}"));
    }
    host.refused(
        ["clone", &dir, "-n", "1", "--id", "c", "--copy-disks", &copies],
        &["c-1-data is there already", "remove it"],
    );
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 2);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
    let changed = ["clone", &dir, "-n", "1", "--copy-disks", &copies];
    host.refused(changed, &["\"data\"", path, "was written to since", "--accept-changed-disks"]);
    host.ask(
        [
            &changed[..],
            &["--", "--accept-changed-disks", "--vsock", &format!("uds={}", saved.text("other.sock"))],
        ]
        .concat(),
    );
    saved.assert_echoes("one-1");
    host.verb(["clone", &dir, "-n", "1", "--", "--bogus"]).run().assert_refused(2, &["'--bogus'"]);
}
