//! rvmm's own benchmarks, as a program that is installed somewhere.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests: what cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skip::Capability;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rvmm-bench");

/// The rvmm to measure: `RVMM_PROGRAM`, or the one that was built beside rvmm-bench. If there is none, or no KVM, the running test
/// is skipped.
fn rvmm() -> Option<PathBuf> {
    let beside = Path::new(PROGRAM).with_file_name("rvmm");
    let rvmm = env::var_os("RVMM_PROGRAM").map_or(beside, PathBuf::from);
    skip::available(Capability::Kvm, fs::File::options().read(true).write(true).open("/dev/kvm"))?;
    if !rvmm.is_file() {
        skip::skip(Capability::Programs, format!("there is no {}", rvmm.display()));
        return None;
    }
    Some(rvmm)
}

#[test]
fn what_a_linux_guest_needs_is_asked_for_outside_of_the_source_tree() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("rvmm-bench");
    fs::copy(PROGRAM, &program).unwrap();
    for (words, option, script) in [
        (&["io"][..], "--kernel", "resources/debian-kernel 6.12"),
        (&["restore", "--linux"], "--kernel", "resources/small-kernel"),
        (&["restore", "--linux", "--kernel", PROGRAM], "--rootfs", "resources/busybox-rootfs"),
    ] {
        let mut command = Command::new(&program);
        command.args(words).current_dir(&folder).env_clear().stdin(Stdio::null());
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {complaint}");
        assert!(complaint.contains(option) && complaint.contains(script), "{words:?}: {complaint}");
    }
}

#[test]
fn a_signal_ends_a_benchmark_and_nothing_is_left() {
    let Some(rvmm) = rvmm() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["startup", "--runs", "100000", "--only", "rvmm"])
            .env("RVMM_PROGRAM", &rvmm)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // rvmm has run: what it keeps is there.
        wait_until(|| entries(folder.path()).iter().any(|entry| entry.join("kept/rvmm").exists()));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + signal as i32));
        assert!(entries(folder.path()).is_empty());
        assert_eq!(processes_of(folder.path()), [""; 0]);
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Command lines that have `folder` in them.
fn processes_of(folder: &Path) -> Vec<String> {
    let all = procfs::process::all_processes().unwrap().flatten();
    let lines = all.filter_map(|process| Some(process.cmdline().ok()?.join(" ")));
    lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_mins(1));
        thread::sleep(Duration::from_millis(10));
    }
}
