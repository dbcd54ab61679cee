//! How fast snapshots are written and restored, and what clones cost: `cargo bench --bench snapshot -- --help`
//!
//! Guests are bare ones with 1 vCPU and 128 MiB.
//!
//! - *restore*: from just before the process is created to the first byte of a guest that writes in a loop;
//! - *create*: from the request over the socket to its answer, when the snapshot is on the disk; the VM is paused before. A guest
//!   that halts, one that has written to 16 MiB, and a diff of 16 pages of that;
//! - *pause*: for how long rvmm had a guest stand still that runs, as it says itself;
//! - *clones*: what `rvmm clone` takes for all of them, and what memory each has of its own.
//!
//! rvmm and Firecracker, where it is at hand, take turns; the ratio is that of the medians.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that can't go on says so and stops")]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "few runs, short times, no input from outside"
)]

#[path = "../../tests/support/bare.rs"]
mod bare;
#[path = "../api/client.rs"]
mod client;
mod clones;
#[path = "../container.rs"]
mod container;
#[path = "../cpu.rs"]
mod cpu;
#[path = "../emulated.rs"]
mod emulated;
#[path = "../startup/host.rs"]
mod host;
mod linux;
#[path = "../programs.rs"]
mod programs;
#[path = "../startup/summary.rs"]
mod summary;
mod vmms;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use summary::Summary;
use vmms::Vmm;

const HELP: &str = "\
cargo bench --bench snapshot -- [OPTION...]
  --runs N         restores and snapshots of each VMM that are timed (default 30)
  --clones N       clones of one snapshot (default 100)
  --folder DIR     where snapshots are written (default: /dev/shm if it is there, whose files are memory)
  --json FILE      everything, as JSON
  --linux          instead, a Linux guest that is restored against containers that are started (crun, runc where they are
                   installed), on the emulated host where Linux guests do not run here
  --counted        with --linux: on an emulated host whose clock counts instructions
  FIRECRACKER=PROGRAM in the environment names Firecracker, where it is not on PATH; RVMM_PROGRAM names an rvmm other than
  the one that is built with this program";

/// Runs before those that count.
const WARM_UP_RUNS: usize = 3;

struct Options {
    runs: usize,
    clones: usize,
    folder: Option<PathBuf>,
    json: Option<String>,
    linux: bool,
    counted: bool,
}

impl Options {
    fn from_args() -> Self {
        let mut options =
            Self { runs: 30, clones: 100, folder: None, json: None, linux: false, counted: false };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| usage(&format!("{arg} wants a value")));
            let number =
                |text: String| text.parse().unwrap_or_else(|_| usage(&format!("{text} is no number")));
            match arg.as_str() {
                "--runs" => options.runs = number(value()),
                "--clones" => options.clones = number(value()),
                "--folder" => options.folder = Some(value().into()),
                "--json" => options.json = Some(value()),
                "--linux" => options.linux = true,
                "--counted" => options.counted = true,
                "--help" | "-h" => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                "--bench" => {} // from cargo
                other => usage(&format!("{other} is unknown")),
            }
        }
        options
    }
}

fn usage(message: &str) -> ! {
    eprintln!("snapshot: {message}\n{HELP}");
    std::process::exit(2)
}

/// One thing that was measured, in milliseconds.
struct Measured {
    what: &'static str,
    vmm: &'static str,
    summary: Summary,
}

/// What is timed, by its name.
struct Times(Vec<(&'static str, Vmm, Vec<f64>)>);

impl Times {
    fn add(&mut self, what: &'static str, vmm: Vmm, time: Duration) {
        let time = time.as_secs_f64() * 1e3;
        match self.0.iter_mut().find(|(other, of, _)| *other == what && *of == vmm) {
            Some((.., times)) => times.push(time),
            None => self.0.push((what, vmm, vec![time])),
        }
    }
}

fn main() {
    let options = Options::from_args();
    if options.linux {
        return linux::compare(options.runs, options.counted);
    }
    println!("host: {}", host::describe());
    let shm = Path::new("/dev/shm");
    let parent = options.folder.clone().or_else(|| shm.is_dir().then(|| shm.to_owned()));
    let folder = parent.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let folder = folder.path();
    println!("figures: {} runs in turns after {WARM_UP_RUNS} to warm up; 1 vCPU, 128 MiB", options.runs);
    println!("         snapshots are in {}\n", folder.parent().unwrap().display());

    let vmms = vmms::all();
    let mut times = Times(Vec::new());
    restores(&vmms, folder, options.runs, &mut times);
    creations(&vmms, folder, options.runs, &mut times);
    pauses(folder, options.runs, &mut times);
    let measured: Vec<Measured> = times
        .0
        .into_iter()
        .map(|(what, vmm, times)| Measured { what, vmm: vmm.name(), summary: Summary::of(times) })
        .collect();
    print(&measured);
    let clones = clones::measure(folder, options.clones);
    println!("\n{clones}");
    if let Some(path) = &options.json {
        std::fs::write(path, report(&measured, &clones)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// A folder of a snapshot that is not there yet.
fn fresh(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn restores(vmms: &[Vmm], folder: &Path, runs: usize, times: &mut Times) {
    let snapshots: Vec<PathBuf> = vmms
        .iter()
        .map(|vmm| {
            let snapshot = fresh(folder, &format!("restore-{}", vmm.name()));
            let mut machine = vmm.guest(folder, "count-forever");
            machine.pause();
            machine.create(&snapshot, "Full");
            snapshot
        })
        .collect();
    for run in 0..WARM_UP_RUNS + runs {
        for (vmm, snapshot) in vmms.iter().zip(&snapshots) {
            let time = vmm.time_to_restore(folder, snapshot);
            if run >= WARM_UP_RUNS {
                times.add("restore to the first byte", *vmm, time);
            }
        }
    }
}

fn creations(vmms: &[Vmm], folder: &Path, runs: usize, times: &mut Times) {
    for (what, guest, kind) in [
        ("create, a guest that halts", "hlt-forever", "Full"),
        ("create, 16 MiB written", "write-on-demand", "Full"),
        ("create, a diff of 16 pages", "write-on-demand", "Diff"),
    ] {
        let mut machines: Vec<_> = vmms.iter().map(|vmm| vmm.guest(folder, guest)).collect();
        for (vmm, machine) in vmms.iter().zip(&mut machines) {
            machine.pause();
            machine.create(&fresh(folder, &format!("base-{}", vmm.name())), "Full");
            machine.resume();
        }
        for run in 0..WARM_UP_RUNS + runs {
            for (vmm, machine) in vmms.iter().zip(&mut machines) {
                if kind == "Diff" {
                    machine.write_pages();
                }
                machine.pause();
                let snapshot = fresh(folder, &format!("create-{}-{}", vmm.name(), run % 2));
                let time = machine.create(&snapshot, kind);
                machine.resume();
                if run >= WARM_UP_RUNS {
                    times.add(what, *vmm, time);
                }
            }
        }
    }
}

/// Has rvmm write snapshots of guests that run.
fn pauses(folder: &Path, runs: usize, times: &mut Times) {
    for (what, kind) in [("pause, 16 MiB written", "Full"), ("pause, a diff of 16 pages", "Diff")] {
        let mut machine = Vmm::Rvmm.guest(folder, "write-on-demand");
        machine.create_live(&fresh(folder, "pause-base"), "Full");
        for run in 0..WARM_UP_RUNS + runs {
            machine.write_pages();
            let snapshot = fresh(folder, &format!("pause-{}", run % 2));
            let time = machine.create_live(&snapshot, kind);
            if run >= WARM_UP_RUNS {
                times.add(what, Vmm::Rvmm, time);
            }
        }
    }
}

fn print(all: &[Measured]) {
    println!("{:<28} {:<12} {:>10} {:>9} {:>9}   {:>7}", "", "", "median", "p90", "min", "ratio");
    for Measured { what, vmm, summary } in all {
        let base = all.iter().find(|other| other.what == *what).map_or(1.0, |base| base.summary.median);
        println!(
            "{what:<28} {vmm:<12} {:>7.2} ms {:>9.2} {:>9.2}   {:>7.2}",
            summary.median,
            summary.p90,
            summary.min,
            summary.median / base
        );
    }
}

fn report(all: &[Measured], clones: &clones::Clones) -> String {
    let measured: Vec<Value> = all
        .iter()
        .map(|Measured { what, vmm, summary }| json!({"what": what, "vmm": vmm, "summary": summary.json()}))
        .collect();
    let report = json!({"host": host::describe(), "measured": measured, "clones": clones.json()});
    format!("{report:#}\n")
}
