//! `rvmm bench compare` leaves nothing behind: no process, mount, control group, network device or file, however it ends.
//!
//! What it compares here needs no KVM; guests are in [`linux::bench`](crate::linux).

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, thread};

use serde_json::Value;
use skip::Capability;

use crate::support::bench::{Bench, processes, traces};
use crate::support::{poll, process};

/// Whether a process with this command line belongs to an instance of `name` that idles, which is there for five seconds.
fn idles(name: &str, line: &str) -> bool {
    match name {
        "process" => line.ends_with("/rootfs/bench idle"),
        "runsc" => line.starts_with("runsc-sandbox ") && line.ends_with("-memory"),
        _ => line == "/bench idle",
    }
}

/// The result of the contender `name`.
#[track_caller]
pub(crate) fn contender<'a>(results: &'a Value, name: &str) -> &'a Value {
    let all = results["contenders"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}: {results:#}"))
}

/// Its errors, in one.
fn errors(results: &Value, name: &str) -> String {
    contender(results, name)["errors"].to_string()
}

/// A command that sleeps for a time that nobody else sleeps for, so that it is found among all processes.
fn sleeper() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("sleep {}.{}", 10_000_000 + std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a process has `line` as its command line.
fn runs(line: &str) -> bool {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|found| String::from_utf8_lossy(&found).replace('\0', " ").trim_end() == line)
}

/// Tests of each contender, in a module of its name.
macro_rules! of_each {
    ($test:ident: $($name:ident),*) => {
        mod $test {
            $(#[test]
            fn $name() {
                super::$test(stringify!($name));
            })*
        }
    };
}

of_each!(a_comparison_leaves_nothing_behind: process, venv, runc, crun, runsc, podman);
of_each!(ctrl_c_ends_a_comparison_which_keeps_what_it_has_measured: process, runc, crun, runsc, podman);
of_each!(what_a_killed_comparison_leaves_is_removed_at_once: process, runc, crun, runsc, podman);
of_each!(the_next_comparison_removes_what_a_killed_one_has_left: process, runc, crun, runsc, podman);

fn a_comparison_leaves_nothing_behind(name: &str) {
    let bench = Bench::new();
    let command =
        bench.compare(&format!("--only {name} --measure start,memory,density --runs 2 --max-instances 2"));
    let results = bench.run(command);
    let one = contender(&results, name);
    if !has_started(name, one) {
        return;
    }
    assert_eq!(one["start"].as_array().unwrap().len(), 2, "{one:#}");
    assert_eq!(one["errors"], serde_json::json!([]), "{name}");
    assert!(one["memory"]["total"].as_u64().unwrap() > 100_000, "{one:#}");
    assert_eq!(one["density"]["steps"][1]["instances"], 2, "{one:#}");
}

fn ctrl_c_ends_a_comparison_which_keeps_what_it_has_measured(name: &str) {
    if !starts(name) {
        return;
    }
    let bench = Bench::new();
    let comparison = bench.launch(bench.compare(&format!("--only {name} --measure start,memory --runs 1")));
    let folder = comparison.folder.clone();
    comparison.wait_for_process(|line| idles(name, line));
    comparison.signal(libc::SIGINT).signal(libc::SIGINT);
    thread::sleep(Duration::from_millis(5));
    comparison.signal(libc::SIGINT);
    assert_eq!(comparison.end().code(), Some(130), "{name}");
    bench.assert_nothing_left(&folder);
    let results = bench.results();
    assert_eq!(results["cut_short"], "interrupted by SIGINT");
    assert_eq!(contender(&results, name)["start"].as_array().unwrap().len(), 1, "{results:#}");
}

#[test]
fn a_signal_ends_it_at_any_moment_and_nothing_is_left() {
    for (signal, delay) in [
        (libc::SIGTERM, 0),
        (libc::SIGHUP, 20),
        (libc::SIGINT, 60),
        (libc::SIGTERM, 150),
        (libc::SIGINT, 400),
    ] {
        let bench = Bench::new();
        let comparison = bench.launch(bench.compare("--measure start,density --runs 3 --max-instances 8"));
        let folder = comparison.folder.clone();
        thread::sleep(Duration::from_millis(delay));
        comparison.signal(signal);
        assert_eq!(comparison.end().code(), Some(128 + signal), "after {delay} ms");
        bench.assert_nothing_left(&folder);
    }
}

#[test]
fn a_workload_that_hangs_is_given_up() {
    let bench = Bench::new();
    let line = sleeper();
    let mut command = bench.compare("--only process,venv --measure start --runs 1 --timeout 1");
    command.arg("--workload").arg(bench.script(&line));
    let results = bench.run(command);
    assert!(errors(&results, "process").contains("given up after 1 s"), "{results:#}");
    assert!(!runs(&line), "{line}");
}

#[test]
fn a_daemon_that_a_workload_leaves_is_killed_and_told_of() {
    let bench = Bench::new();
    let line = sleeper();
    let mut command = bench.compare("--only process --measure start --runs 1");
    command
        .arg("--workload")
        .arg(bench.script(&format!("setsid {line} </dev/null >/dev/null 2>&1 &\necho rvmm-bench: started")));
    let results = bench.run(command);
    assert!(errors(&results, "process").contains("left processes behind: sleep"), "{results:#}");
    assert_eq!(contender(&results, "process")["start"].as_array().unwrap().len(), 1, "{results:#}");
    assert!(!runs(&line), "{line}");
}

#[test]
fn a_workload_that_fails_is_listed_with_what_it_said() {
    let bench = Bench::new();
    let mut command = bench.compare("--only process --measure start --runs 1");
    command.arg("--workload").arg(bench.script("echo 'the disk is on fire' >&2; exit 3"));
    let results = bench.run(command);
    assert!(errors(&results, "process").contains("the disk is on fire"), "{results:#}");
}

/// Kills a comparison while an instance of each idles, and whoever watches over it as well if `keeper` says so.
fn killed(bench: &Bench, name: &str, keeper: bool) -> std::path::PathBuf {
    let comparison = bench.launch(bench.compare(&format!("--only {name} --measure memory")));
    let folder = comparison.folder.clone();
    comparison.wait_for_process(|line| idles(name, line));
    if keeper {
        let of_keeper = Command::new("pgrep")
            .args(["-f", "--", &format!("keep {}$", folder.display())])
            .output()
            .unwrap();
        let pids = String::from_utf8(of_keeper.stdout).unwrap();
        let pid = pids.trim().parse().unwrap_or_else(|_| panic!("one process watches over it: {pids:?}"));
        process::kill(pid, libc::SIGKILL);
    }
    comparison.signal(libc::SIGKILL);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&comparison.end()), Some(libc::SIGKILL));
    folder
}

fn what_a_killed_comparison_leaves_is_removed_at_once(name: &str) {
    if !starts(name) {
        return;
    }
    let bench = Bench::new();
    let folder = killed(&bench, name, false);
    assert!(poll(|| traces(&folder).is_empty()), "{name}: {:#?}", traces(&folder));
}

fn the_next_comparison_removes_what_a_killed_one_has_left(name: &str) {
    if !starts(name) {
        return;
    }
    let bench = Bench::new();
    let folder = killed(&bench, name, true);
    assert!(!processes(&folder).is_empty(), "{name}: the instance goes on");
    bench.run(bench.compare("--only process --measure start --runs 1"));
    assert_eq!(traces(&folder), Vec::<String>::new(), "{name}");
}

#[test]
fn a_comparison_leaves_another_one_alone() {
    let bench = Bench::new();
    let first = bench.launch(bench.compare("--only process --measure memory"));
    let folder = first.folder.clone();
    first.wait_for_process(|line| idles("process", line));
    let second = bench.launch(bench.compare("--only process --measure start --runs 1"));
    assert!(second.end().success());
    assert!(!processes(&folder).is_empty(), "the first one goes on");
    assert!(first.end().success());
    bench.assert_nothing_left(&folder);
}

/// Whether the contender `name` starts anything on this host; if not, the test is skipped.
fn starts(name: &str) -> bool {
    let bench = Bench::new();
    let results = bench.run(bench.compare(&format!("--only {name} --measure start --runs 1")));
    has_started(name, contender(&results, name))
}

/// Whether a contender with this result has started something. If not, the test is skipped; a plain process starts everywhere.
fn has_started(name: &str, one: &Value) -> bool {
    let started = !one["start"].as_array().unwrap().is_empty();
    if !started {
        assert_ne!(name, "process", "{one:#}");
        skip::skip(
            Capability::Runtimes,
            format!("{name} does not start here: {} {}", one["missing"], one["errors"]),
        );
    }
    started
}
