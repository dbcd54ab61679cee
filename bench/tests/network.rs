//! What a comparison leaves of the network that it makes: nothing, however it ends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy.toml sees only functions marked #[test]"
)]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use skip::Capability;

/// How long something may take on a slow host.
const PATIENCE: Duration = Duration::from_mins(2);

/// A comparison of one contender's work, in `folder`.
fn comparison(folder: &Path, runs: u32) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rvmm-bench"))
        .args(["compare", "--only", "process", "--measure", "work", "--runs", &runs.to_string(), "--folder"])
        .arg(folder)
        .arg("--json")
        .arg(folder.join("result.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// How the names of a network begin that the comparison in `folder` makes. It has to be there already.
fn prefix(child: &mut Child, folder: &Path) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let names = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
        let mut suffixes =
            names.filter_map(|name| Some(name.to_str()?.strip_prefix("rvmm-bench-")?.to_owned()));
        if let Some(suffix) = suffixes.next() {
            return format!("rb{suffix}");
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended without a folder");
        assert!(Instant::now() < until, "it makes no folder");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The interfaces and namespaces whose names begin with `prefix`.
fn network(prefix: &str) -> Vec<String> {
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
    let interfaces = interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    let spaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let spaces = spaces.map(|entry| entry.file_name().to_string_lossy().into_owned());
    interfaces.chain(spaces).filter(|name| name.starts_with(prefix)).collect()
}

/// Programs that run from `folder`.
fn processes_in(folder: &Path) -> Vec<String> {
    let all = procfs::process::all_processes().unwrap().flatten();
    let programs = all.filter_map(|process| process.exe().ok());
    programs
        .filter(|program| program.starts_with(folder))
        .map(|program| program.display().to_string())
        .collect()
}

/// Waits until the comparison's instance talks to the outside: then all that it makes is there.
fn wait_for_the_outside(child: &mut Child, folder: &Path) {
    let until = Instant::now() + PATIENCE;
    loop {
        let all = procfs::process::all_processes().unwrap().flatten();
        let mut words = all
            .filter(|process| process.exe().is_ok_and(|program| program.starts_with(folder)))
            .filter_map(|process| process.cmdline().ok());
        if words.any(|words| words.iter().any(|word| word.starts_with("outside="))) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it had a network");
        assert!(Instant::now() < until, "no instance talks to the outside");
        thread::sleep(Duration::from_millis(5));
    }
}

fn end(mut child: Child) -> ExitStatus {
    child.wait().unwrap()
}

/// Whether the host can have such a network. If not, the running test is skipped, at least in part.
fn possible() -> bool {
    if !geteuid().is_root() {
        skip::skip(Capability::Root, "an outside network takes root rights");
        return false;
    }
    skip::has_program(Capability::Programs, "ip")
}

#[test]
fn a_comparison_measures_every_work_and_leaves_no_network_and_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = comparison(folder.path(), 1);
    let prefix = prefix(&mut child, folder.path());
    assert!(end(child).success());
    let text = fs::read(folder.path().join("result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let works = result["contenders"][0]["work"].as_array().unwrap();
    assert_eq!(works.len(), 9);
    for work in works {
        let outside = work["name"].as_str().unwrap().starts_with("outside-");
        if outside && !possible() {
            assert!(work["error"].is_string(), "{work}");
        } else {
            assert!(work["samples"][0].as_f64().unwrap() > 0.0, "{work}");
        }
    }
    assert_eq!(network(&prefix), [""; 0]);
    assert_eq!(processes_in(folder.path()), [""; 0]);
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["result.json"]);
}

#[test]
fn a_signal_leaves_no_network_and_no_process() {
    if !possible() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = comparison(folder.path(), 3);
        let prefix = prefix(&mut child, folder.path());
        wait_for_the_outside(&mut child, folder.path());
        assert!(!network(&prefix).is_empty());
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(end(child).code(), Some(128 + signal as i32));
        assert_eq!(network(&prefix), [""; 0], "{signal}");
        assert_eq!(processes_in(folder.path()), [""; 0], "{signal}");
    }
}

#[test]
fn the_network_of_a_comparison_that_was_killed_is_removed() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = comparison(folder.path(), 1);
    let prefix = prefix(&mut child, folder.path());
    wait_for_the_outside(&mut child, folder.path());
    assert!(!network(&prefix).is_empty());
    child.kill().unwrap();
    end(child);
    let until = Instant::now() + PATIENCE;
    while !network(&prefix).is_empty() || !processes_in(folder.path()).is_empty() {
        assert!(
            Instant::now() < until,
            "{:?} is left, and {:?}",
            network(&prefix),
            processes_in(folder.path())
        );
        thread::sleep(Duration::from_millis(20));
    }
}
