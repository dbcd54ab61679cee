//! How fast a VM starts and how little it needs: `rvmm bench startup`.
//!
//! The guest is a bare one that writes one byte on the serial port and powers off. Two times are taken of each run:
//!
//! - *to the byte*: from just before the contender's process is created to the moment when the guest's byte comes out of
//!   its stdout, a pipe;
//! - *to the end*: from there to the moment when the process has ended and was waited for.
//!
//! and the processor time that it took in all: on a busy host, that is the figure to trust.
//!
//! The contenders run in turns, A B C A B C…, so that what else the host does meets them all. The yardstick is
//! `minimal_kvm.c`, the least that a C program can ask of KVM for such a VM; every other contender is compared with it
//! run by run, and the ratio is the median of these. Other VMMs and container runtimes take part when they are on PATH.
//!
//! With `--devices`, rvmm takes part with one device more each instead, and is compared with rvmm alone.

mod contenders;
mod devices;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::ensure;

use super::{WARM_UP_RUNS, check_json, footprint, guarded, host, print, progress, write_json};
use crate::args::StartupArgs;
use crate::compare::interrupt;
use contenders::{Contender, YARDSTICK};
use run::{Sample, Try};

/// A contender and how its runs went.
struct Series {
    contender: Contender,
    samples: Vec<Sample>,
}

/// Measures, prints what was found, and writes what was asked for.
///
/// # Errors
/// rvmm or the minimal C program cannot be measured, or a file cannot be written.
pub(crate) fn run(args: &StartupArgs) -> anyhow::Result<ExitCode> {
    check_json(args.json.as_deref())?;
    guarded(|| measure(args))
}

fn measure(args: &StartupArgs) -> anyhow::Result<()> {
    print(&format!(
        "host: {}\n\
         figures: 1 vCPU, 128 MiB, {} runs in turns after {WARM_UP_RUNS} to warm up\n         \
         to the byte: process start to the guest's byte on stdout; to the end: from there to the process's end\n\n",
        host::describe(),
        args.runs
    ))?;
    let folder = tempfile::Builder::new().prefix("rvmm-bench-").tempdir()?;
    let mut contenders = contenders::all(folder.path())?;
    let mut tap = None;
    if args.devices {
        contenders.retain(|contender| contender.name == YARDSTICK);
        contenders.extend(devices::all(folder.path(), &mut tap)?);
    }
    let wanted =
        |name: &str| args.only.is_empty() || args.only.iter().any(|text| name.contains(text.as_str()));
    // The yardstick takes part always.
    contenders.retain(|contender| contender.name == YARDSTICK || wanted(contender.name));
    let found = contenders.iter().any(|contender| wanted(contender.name));
    ensure!(found, "no contender on this host has {} in its name", args.only.join(" or "));
    let mut all = Vec::new();
    for contender in contenders {
        match run::once(&contender, Try::First) {
            Ok(_) => all.push(Series { contender, samples: Vec::new() }),
            Err(error) => give_up(&contender, error)?,
        }
    }
    take_turns(&mut all, args.runs as usize)?;

    let mut text = report::table(&all);
    if args.devices {
        text.push_str(&devices::table(&all));
    }
    let footprint = footprint::measure(folder.path(), &[], || Ok(()))?;
    print(&format!("{text}\n{footprint}\n"))?;
    write_json(args.json.as_deref(), &report::json(&all, &footprint))
}

/// Starts all `runs` times, in turns. One that fails is left out.
fn take_turns(all: &mut Vec<Series>, runs: usize) -> anyhow::Result<()> {
    let bar = progress::bar("starts", WARM_UP_RUNS + runs);
    for turn in 0..WARM_UP_RUNS + runs {
        let mut failed = Vec::new();
        for (number, series) in all.iter_mut().enumerate() {
            match run::once(&series.contender, Try::Timed) {
                Ok(sample) if turn >= WARM_UP_RUNS => series.samples.push(sample),
                Ok(_) => {}
                Err(error) => failed.push((number, error)),
            }
        }
        for (number, error) in failed.into_iter().rev() {
            let series = all.remove(number);
            bar.suspend(|| give_up(&series.contender, error))?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Says why `contender` takes no part.
///
/// # Errors
/// There is nothing to measure without it, or a signal has come.
fn give_up(contender: &Contender, error: anyhow::Error) -> anyhow::Result<()> {
    interrupt::check()?;
    if contender.name == YARDSTICK || contender.name == contenders::RVMM {
        return Err(error.context(contender.name));
    }
    eprintln!("without {}: {error:#}", contender.name);
    Ok(())
}
