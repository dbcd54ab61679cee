//! Long tests: many cycles and big images. `tests/run long` runs them, CI does not.
//!
//! `RVMM_LONG_TESTS=1` enables them; without it each test is skipped.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::names::Host;
use crate::snapshots::{Asked, Snapshot, counted};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, poll, process};

/// Returns from a long test that was not asked for.
macro_rules! require_long_tests {
    () => {
        if !std::env::var_os("RVMM_LONG_TESTS").is_some_and(|value| value == "1") {
            let reason = "RVMM_LONG_TESTS=1 is not set; `tests/run long` runs the long tests";
            return skip::skip(skip::Capability::LongTests, reason);
        }
        require_kvm!();
    };
}

/// The bytes that the files of `snapshot` occupy on disk.
fn allocated(snapshot: &Snapshot) -> u64 {
    let files = fs::read_dir(snapshot.path()).unwrap();
    files.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn two_thousand_vms_start_and_leave_nothing_behind() {
    require_long_tests!();
    let host = Host::new();
    for number in 0..2000 {
        host.guest("hello", &format!("vm{number}")).run().assert_clean();
    }
    assert_eq!(host.names(), [""; 0]);
    let names = fs::read_dir(host.runtime.path().join("rvmm")).unwrap();
    let left: Vec<_> =
        names.map(|entry| entry.unwrap().file_name()).filter(|name| name != ".cpuid").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_vm_does_not_grow_over_ten_thousand_requests() {
    require_long_tests!();
    let asked = Asked::guest("spin-forever", "spinning");
    let pid = asked.running.pid();
    // All threads run, and no connection is open.
    asked.socket.get("/");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let descriptors = process::descriptors(pid);
    let request = || {
        for state in ["Paused", "Resumed"] {
            asked.socket.patch("/vm", &json!({"state": state})).assert_done();
        }
        asked.socket.get("/vm/config");
    };
    (0..500).for_each(|_| request());
    let before = process::resident_kib(pid);
    (0..3000).for_each(|_| request());
    let after = process::resident_kib(pid);
    assert!(after <= before + 256, "resident memory: {before} KiB, then {after} KiB");
    // The server closes a connection a moment after its client has.
    assert!(poll(|| process::descriptors(pid) == descriptors), "descriptors: {}", process::descriptors(pid));
}

#[test]
fn a_guest_counts_on_through_three_hundred_snapshots() {
    require_long_tests!();
    let first = Asked::guest("count-forever", "00000020\n");
    let mut snapshot = first.snapshot(&json!({"live": true}));
    drop(first);
    let mut last = 0x20;
    for _ in 0..300 {
        let asked = Asked::launch(snapshot.restore(), "0\n");
        asked.pause();
        snapshot = asked.snapshot(&json!({}));
        let output = asked.running.printed();
        // The first line can have begun in the VM before.
        let numbers = counted(output.split_once('\n').unwrap().1);
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{output:?}");
        let newest = numbers.last().copied().unwrap_or(last);
        assert!(newest >= last, "{newest} after {last}: {output:?}");
        last = newest;
    }
}

#[test]
fn a_guest_with_much_memory_has_a_small_snapshot() {
    require_long_tests!();
    let guest = Rvmm::guest("write-on-demand").args(["--memory", "16G"]).stdin(std::process::Stdio::piped());
    let asked = Asked::launch(guest, "!");
    asked.pause();
    let snapshot = asked.snapshot(&json!({}));
    assert!(allocated(&snapshot) < 64 << 20, "{} bytes", allocated(&snapshot));
    drop(asked);
    let mut restored = snapshot.restore().stdin(std::process::Stdio::piped()).launch();
    restored.send("x").wait_for("!");
}

#[test]
fn a_disk_of_four_tebibytes_is_used_like_a_small_one() {
    require_long_tests!();
    let disk = Disk::new(16, "sector zero here");
    fs::File::options().write(true).open(disk.path()).unwrap().set_len(4 << 40).unwrap();
    let ended = Rvmm::guest("virtio-blk").disk(&disk.path(), "").run();
    ended.assert_clean();
    assert!(ended.stdout.contains("data sector zero here"), "{ended:#?}");
    assert!(ended.stdout.contains("data looklooklooklook"), "{ended:#?}");
    assert!(fs::metadata(disk.path()).unwrap().blocks() * 512 < 1 << 20);
}
