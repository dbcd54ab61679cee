//! Full disks, read-only ones, processes that are killed, and others at the same place: there is a whole snapshot, or none.
//!
//! What needs a process of its own is this test program once more, with [`CHILD`] in its environment.

use super::*;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use skip::Capability;

/// Names the folder that the child works in.
const CHILD: &str = "RVMM_TEST_SNAPSHOT_CHILD";

/// Tries to write a snapshot with `pages` pages in use.
fn attempt(dir: &Path, pages: u64) -> Result<Manifest, SnapshotError> {
    let bytes: Vec<_> = (0..pages).map(|page| (page * PAGE_SIZE, 7)).collect();
    let memory = memory(&bytes);
    let partial = Partial::begin(dir)?;
    let written = memory_file::write(partial.memory(), &memory, &touched(&memory).unwrap());
    written.map_err(|error| partial.memory_error(error))?;
    partial.commit(&mut state(), &config(), manifest::Cpu::default())
}

/// The folder that a child is to work in.
fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// This program, to run the test `name` alone with `folder` to work in.
fn child(name: &str, folder: &Path) -> Vec<String> {
    let program = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
    let test = format!("snapshot::tests::interrupted::{name}");
    let folder = format!("{CHILD}={}", folder.display());
    ["env", &folder, &program, "--exact", &test, "--nocapture"].map(str::to_owned).to_vec()
}

/// Runs the test `name` in a mount namespace, with a tmpfs at the folder that it works in. If there is none, it is skipped.
fn run_on_tmpfs(name: &str, options: &str) {
    let (outer, _) = place();
    let mount = format!("mount -t tmpfs -o {options} none {}", outer.path().display());
    let unshare = |then: &[&str]| {
        let mut command = Command::new("unshare");
        if crate::runtime_dir::effective_user() != 0 {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-c", &format!("{mount} && exec \"$@\""), "sh"]).args(then);
        command.stdin(Stdio::null());
        command
    };
    if !unshare(&["true"]).status().is_ok_and(|status| status.success()) {
        return skip::skip(Capability::UserNamespaces, "no tmpfs can be mounted in a namespace");
    }
    let child = child(name, outer.path());
    let output = unshare(&child.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_full_disk_leaves_no_half_snapshot() {
    let Some(folder) = child_folder() else {
        return run_on_tmpfs("a_full_disk_leaves_no_half_snapshot", "size=256k");
    };
    let mut whole = 0;
    for free in 0..32 {
        let filler = folder.join("filler");
        let file = fs::File::create(&filler).unwrap();
        // The folder's own page is not counted on every kernel: as many as there is room for, and then some less.
        let mut taken = 0;
        while std::os::unix::fs::FileExt::write_at(&file, &[1; 4096], taken).is_ok_and(|count| count == 4096)
        {
            taken += 4096;
        }
        file.set_len(taken.saturating_sub(free * 4096)).unwrap();
        let dir = folder.join("snapshot");
        match attempt(&dir, 16) {
            Ok(_) => {
                whole += 1;
                assert_eq!(verify(&dir).unwrap().len(), 1);
                fs::remove_dir_all(&dir).unwrap();
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("make room"), "{free} pages free: {error}");
            }
        }
        assert_eq!(names(&folder), ["filler"], "{free} pages free");
    }
    assert!((1..31).contains(&whole), "{whole} of 32 found room");
}

#[test]
fn a_read_only_disk_is_named_with_the_mend() {
    let Some(folder) = child_folder() else {
        return run_on_tmpfs("a_read_only_disk_is_named_with_the_mend", "ro");
    };
    let error = attempt(&folder.join("snapshot"), 1).unwrap_err().to_string();
    assert!(error.contains("can be written to") && error.contains(folder.to_str().unwrap()), "{error}");
    assert_eq!(names(&folder), [""; 0]);
}

/// Ends a child, however the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_that_is_killed_leaves_whole_snapshots_or_none() {
    if let Some(folder) = child_folder() {
        for number in 0.. {
            attempt(&folder.join(number.to_string()), 256).unwrap();
        }
    }
    let (mut finished, mut left_behind) = (0, 0);
    for round in 0..12_u64 {
        let (outer, _) = quick_place();
        let child = child("a_process_that_is_killed_leaves_whole_snapshots_or_none", outer.path());
        let mut command = Command::new(&child[0]);
        command.args(&child[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Killed(command.spawn().unwrap());
        let is_whole = |name: &String| !name.starts_with('.');
        while names(outer.path()).iter().filter(|name| is_whole(name)).count() < round as usize % 3 {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(700 * round * round));
        drop(running);
        let all = names(outer.path());
        let (whole, hidden): (Vec<_>, Vec<_>) = all.iter().partition(|name| is_whole(name));
        assert!(hidden.len() <= 1, "{all:?}");
        for name in &whole {
            verify(&outer.path().join(name)).unwrap();
        }
        finished += whole.len();
        left_behind += hidden.len();
        // The next one who writes there takes over what was left.
        let next = outer.path().join(whole.len().to_string());
        attempt(&next, 3).unwrap();
        assert!(names(outer.path()).iter().all(is_whole), "{all:?}");
        assert_eq!(verify(&next).unwrap()[0].memory, Some(3 * PAGE_SIZE));
    }
    assert!(finished > 0 && left_behind > 0, "{finished} whole, {left_behind} left behind");
}

#[test]
fn of_many_at_one_place_one_succeeds_and_the_others_say_why() {
    for _ in 0..20 {
        let (outer, dir) = quick_place();
        let results: Vec<_> = thread::scope(|scope| {
            let dir = &dir;
            let attempts: Vec<_> = (1..=6).map(|pages| scope.spawn(move || attempt(dir, pages))).collect();
            attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect()
        });
        let (whole, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(whole.len(), 1);
        for error in refused.into_iter().map(Result::unwrap_err) {
            let expected = matches!(error, SnapshotError::UnderWay { .. } | SnapshotError::Occupied { .. });
            assert!(expected, "{error}");
        }
        verify(&dir).unwrap();
        assert_eq!(names(outer.path()), ["snapshot"]);
    }
}
