//! How fast snapshots are written and restored, and what clones cost: `rvmm bench restore`.
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

mod clones;
mod linux;
mod vmms;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bare::Guest;
use super::measured::{self, Measured};
use super::summary::Summary;
use super::{WARM_UP_RUNS, check_json, guarded, host, print, progress, write_json};
use crate::args::RestoreArgs;
use vmms::Vmm;

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

/// Measures, prints what was found, and writes what was asked for.
///
/// # Errors
/// A VMM cannot be measured, a file cannot be written, or what a Linux guest needs is not there.
pub(crate) fn run(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    check_json(args.json.as_deref())?;
    if args.linux {
        // Before there is anything to tidy: this process may become another.
        let needed = linux::enter(args)?;
        return guarded(|| linux::compare(&needed, args));
    }
    guarded(|| measure(args))
}

/// A folder for snapshots, which is removed with it.
fn scratch(parent: Option<&Path>) -> anyhow::Result<TempDir> {
    let shm = Path::new("/dev/shm");
    let parent = parent.or_else(|| shm.is_dir().then_some(shm));
    let mut builder = tempfile::Builder::new();
    builder.prefix("rvmm-bench-");
    parent.map_or_else(|| builder.tempdir(), |parent| builder.tempdir_in(parent)).with_context(|| {
        format!("no folder can be made in {}", parent.unwrap_or(&std::env::temp_dir()).display())
    })
}

fn measure(args: &RestoreArgs) -> anyhow::Result<()> {
    let runs = args.runs as usize;
    let folder = scratch(args.folder.as_deref())?;
    let folder = folder.path();
    print(&format!(
        "host: {}\nfigures: {runs} runs in turns after {WARM_UP_RUNS} to warm up; 1 vCPU, 128 MiB\n         \
         snapshots are in {}\n\n",
        host::describe(),
        folder.parent().unwrap_or(folder).display()
    ))?;

    let vmms = vmms::all();
    let mut times = Times(Vec::new());
    restores(&vmms, folder, runs, &mut times)?;
    creations(&vmms, folder, runs, &mut times)?;
    pauses(folder, runs, &mut times)?;
    let all: Vec<Measured> = times
        .0
        .into_iter()
        .map(|(what, vmm, times)| Measured { what, unit: "ms", vmm: vmm.name(), summary: Summary::of(times) })
        .collect();
    print(&measured::table(&all))?;
    let clones = clones::measure(folder, args.clones)?;
    print(&format!("\n{clones}\n"))?;
    write_json(args.json.as_deref(), &report(&all, &clones))
}

/// A folder of a snapshot that is not there yet.
fn fresh(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn restores(vmms: &[Vmm], folder: &Path, runs: usize, times: &mut Times) -> anyhow::Result<()> {
    let mut snapshots = Vec::new();
    for vmm in vmms {
        let snapshot = fresh(folder, &format!("restore-{}", vmm.name()));
        let mut machine = vmm.guest(folder, Guest::CountForever)?;
        machine.pause()?;
        machine.create(&snapshot, "Full")?;
        snapshots.push(snapshot);
    }
    let bar = progress::bar("restore", WARM_UP_RUNS + runs);
    for run in 0..WARM_UP_RUNS + runs {
        for (vmm, snapshot) in vmms.iter().zip(&snapshots) {
            let time = vmm.time_to_restore(folder, snapshot)?;
            if run >= WARM_UP_RUNS {
                times.add("restore to the first byte", *vmm, time);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn creations(vmms: &[Vmm], folder: &Path, runs: usize, times: &mut Times) -> anyhow::Result<()> {
    for (what, guest, kind) in [
        ("create, a guest that halts", Guest::HltForever, "Full"),
        ("create, 16 MiB written", Guest::WriteOnDemand, "Full"),
        ("create, a diff of 16 pages", Guest::WriteOnDemand, "Diff"),
    ] {
        let mut machines =
            vmms.iter().map(|vmm| vmm.guest(folder, guest)).collect::<anyhow::Result<Vec<_>>>()?;
        for (vmm, machine) in vmms.iter().zip(&mut machines) {
            machine.pause()?;
            machine.create(&fresh(folder, &format!("base-{}", vmm.name())), "Full")?;
            machine.resume()?;
        }
        let bar = progress::bar(what, WARM_UP_RUNS + runs);
        for run in 0..WARM_UP_RUNS + runs {
            for (vmm, machine) in vmms.iter().zip(&mut machines) {
                if kind == "Diff" {
                    machine.write_pages()?;
                }
                machine.pause()?;
                let snapshot = fresh(folder, &format!("create-{}-{}", vmm.name(), run % 2));
                let time = machine.create(&snapshot, kind)?;
                machine.resume()?;
                if run >= WARM_UP_RUNS {
                    times.add(what, *vmm, time);
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    Ok(())
}

/// Has rvmm write snapshots of guests that run.
fn pauses(folder: &Path, runs: usize, times: &mut Times) -> anyhow::Result<()> {
    for (what, kind) in [("pause, 16 MiB written", "Full"), ("pause, a diff of 16 pages", "Diff")] {
        let mut machine = Vmm::Rvmm.guest(folder, Guest::WriteOnDemand)?;
        machine.create_live(&fresh(folder, "pause-base"), "Full")?;
        let bar = progress::bar(what, WARM_UP_RUNS + runs);
        for run in 0..WARM_UP_RUNS + runs {
            machine.write_pages()?;
            let snapshot = fresh(folder, &format!("pause-{}", run % 2));
            let time = machine.create_live(&snapshot, kind)?;
            if run >= WARM_UP_RUNS {
                times.add(what, Vmm::Rvmm, time);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    Ok(())
}

fn report(all: &[Measured], clones: &clones::Clones) -> Value {
    json!({"host": host::describe(), "measured": measured::json(all), "clones": clones.json()})
}
