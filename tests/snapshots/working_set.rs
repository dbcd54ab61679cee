//! What a restored guest uses of its memory: recorded, and at hand for the next.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use super::{Asked, Snapshot};
use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;
use crate::support::process::make_fifo;
use crate::support::{Running, Rvmm};

/// A snapshot of a guest that writes to 16 pages when it is asked to.
fn written() -> Snapshot {
    let asked = Asked::guest("write-on-demand", "!");
    asked.snapshot(&json!({"live": true}))
}

/// Where the guest writes.
const WRITTEN: &str = "2000000 10000 w";
const WRITTEN_KIB: u64 = 64;

fn file_of(snapshot: &Snapshot) -> PathBuf {
    snapshot.path().join("working-set")
}

/// Has it write, and ends it.
#[track_caller]
fn write(restore: Rvmm) -> String {
    let mut running = restore.stdin(Stdio::piped()).launch();
    running.send("w").wait_for("!").signal(libc::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code(), 128 + libc::SIGTERM, "{}", ended.stderr);
    ended.stderr
}

/// KiB of the memory file that are copies of the VM's own.
fn copied_kib(running: &Running, memory: &Path) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", running.pid())).unwrap();
    let mut is_memory = false;
    let mut kib = 0;
    for line in smaps.lines() {
        if line.contains('-') && line.split(' ').count() > 4 {
            is_memory = line.ends_with(memory.to_str().unwrap());
        }
        let anonymous = line.strip_prefix("Anonymous:").filter(|_| is_memory);
        kib += anonymous.map_or(0, |count| count.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
    }
    kib
}

#[test]
fn what_one_guest_wrote_the_next_has_copies_of_before_it_writes() {
    require_kvm!();
    let snapshot = written();
    let memory = snapshot.path().join("memory");
    let copied = || {
        let (socket, mut paused) = (ApiSocket::new(), snapshot.restore());
        paused = paused.arg("--paused").arg("--api-sock").arg(socket.path());
        let mut paused = paused.stdin(Stdio::piped()).launch();
        assert_eq!(socket.get("/").json()["state"], "Paused");
        let kib = copied_kib(&paused, &memory);
        socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
        paused.send("w").wait_for("!");
        kib
    };
    let before = copied();
    write(snapshot.restore().arg("--record"));
    let recorded = fs::read_to_string(file_of(&snapshot)).unwrap();
    assert!(recorded.lines().any(|line| line == WRITTEN), "{recorded}");
    let after = copied();
    assert!((WRITTEN_KIB..2 * WRITTEN_KIB).contains(&(after - before)), "{before} and {after} KiB");
}

#[test]
fn a_second_record_is_of_what_that_guest_used_alone() {
    require_kvm!();
    let snapshot = written();
    fs::write(file_of(&snapshot), "3000000 100000 w\n").unwrap();
    write(snapshot.restore().arg("--record"));
    let recorded = fs::read_to_string(file_of(&snapshot)).unwrap();
    assert!(recorded.contains(WRITTEN) && !recorded.contains("3000000"), "{recorded}");
}

#[test]
fn a_record_stays_with_its_snapshot_and_is_for_whom_that_is_for() {
    require_kvm!();
    let snapshot = written();
    let mode = |file: &str, mode| {
        fs::set_permissions(snapshot.path().join(file), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("memory", 0o644);
    let mut running = snapshot.restore().arg("--record").stdin(Stdio::piped()).launch();
    running.send("w").wait_for("!");
    let moved = snapshot.path().with_file_name("moved");
    fs::rename(snapshot.path(), &moved).unwrap();
    fs::create_dir(snapshot.path()).unwrap();
    running.signal(libc::SIGTERM);
    running.end();
    assert_eq!(fs::read_dir(snapshot.path()).unwrap().count(), 0);
    let recorded = moved.join("working-set");
    assert!(fs::read_to_string(&recorded).unwrap().contains(WRITTEN));
    assert_eq!(fs::metadata(recorded).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn what_a_restore_copies_anyway_is_not_recorded() {
    require_kvm!();
    let guest = Rvmm::guest("write-on-demand").arg("--track-dirty-pages").stdin(Stdio::piped());
    let mut asked = Asked::launch(guest, "!");
    let _base = asked.snapshot(&json!({"live": true}));
    asked.running.send("w").wait_for_times(2, "!");
    let diff = asked.snapshot(&json!({"live": true, "snapshot_type": "Diff"}));
    write(diff.restore().arg("--record"));
    let recorded = fs::read_to_string(file_of(&diff)).unwrap();
    assert!(!recorded.contains(WRITTEN), "the diff has these pages: {recorded}");
    write(diff.restore());
}

#[test]
fn a_working_set_that_cannot_be_written_is_told_and_the_vm_ends_as_it_would() {
    require_kvm!();
    let snapshot = written();
    fs::create_dir_all(file_of(&snapshot).join("full")).unwrap();
    let said = write(snapshot.restore().arg("--record"));
    assert!(said.contains("working-set") && said.contains("not recorded"), "{said}");
    assert_eq!(fs::read_dir(snapshot.path()).unwrap().count(), 4, "nothing is left beside");
}

#[test]
fn a_file_that_is_no_working_set_is_refused_by_its_name() {
    require_kvm!();
    let snapshot = written();
    let file = file_of(&snapshot);
    let refused = |mend: &str| {
        snapshot.restore().run().assert_refused(1, &["working-set", mend]);
    };
    fs::write(&file, "0 1000\n0 fffffffffffff000 w\n").unwrap();
    refused("line 2");
    fs::write(&file, "0 10000000 w\n").unwrap();
    refused("record it again");
    fs::remove_file(&file).unwrap();
    make_fifo(&file);
    refused("no regular file");
}

#[test]
fn a_working_set_that_has_everything_many_times_does_no_harm() {
    require_kvm!();
    let snapshot = written();
    fs::write(file_of(&snapshot), "0 4000000 w\n0 8000000\n".repeat(10_000)).unwrap();
    write(snapshot.restore());
}

#[test]
fn what_cannot_be_recorded_is_refused_with_the_way_that_it_can() {
    require_kvm!();
    let snapshot = written();
    for other in [&["--prefault"][..], &["--uffd", "nobody.sock"]] {
        snapshot.restore().arg("--record").args(other).run().assert_refused(2, &["--record", other[0]]);
    }
    let socket = ApiSocket::new();
    let _waiting = Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    let dir = snapshot.path();
    let served = json!({"backend_type": "Uffd", "backend_path": "/nobody.sock"});
    for (more, says) in [
        (json!({"mem_backend": served}), "rvmm serve-memory --record"),
        (
            json!({"mem_file_path": dir.join("memory"), "snapshot_path": dir.join("state")}),
            "the folder of a snapshot",
        ),
        (json!({"prefault": true}), "leave out prefault"),
    ] {
        let mut request = json!({"snapshot_path": dir, "record_working_set": true});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        socket.put("/snapshot/load", &request).assert_refused(says);
    }
    let request = json!({"snapshot_path": dir, "record_working_set": true, "resume_vm": true});
    socket.put("/snapshot/load", &request).assert_done();
}
