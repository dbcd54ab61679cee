//! How fast a VM starts and how little it needs: `cargo bench --bench startup [-- --runs N] [--json FILE] [--only NAME]…`
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

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that can't go on says so and stops")]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "few runs, short times, no input from outside"
)]

#[path = "../../tests/support/bare.rs"]
mod bare;
#[path = "../container.rs"]
mod container;
mod contenders;
#[path = "../cpu.rs"]
mod cpu;
mod devices;
mod footprint;
mod host;
#[path = "../programs.rs"]
mod programs;
mod report;
mod run;
mod summary;

use std::time::Duration;

use contenders::Contender;
use run::Sample;

const WARM_UP_RUNS: usize = 3;

struct Options {
    runs: usize,
    json: Option<String>,
    only: Vec<String>,
    devices: bool,
}

impl Options {
    fn from_args() -> Self {
        let mut options = Self { runs: 40, json: None, only: Vec::new(), devices: false };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| usage(&format!("{arg} wants a value")));
            match arg.as_str() {
                "--runs" => options.runs = value().parse().unwrap_or_else(|_| usage("--runs wants a number")),
                "--json" => options.json = Some(value()),
                "--only" => options.only.push(value()),
                "--devices" => options.devices = true,
                "--bench" => {} // from cargo
                other => usage(&format!("{other} is unknown")),
            }
        }
        if options.runs == 0 {
            usage("--runs wants a number above 0");
        }
        options
    }
}

fn usage(message: &str) -> ! {
    eprintln!(
        "startup: {message}; usage: cargo bench --bench startup [-- --runs N] [--json FILE] [--only NAME]… [--devices]"
    );
    std::process::exit(2)
}

/// A contender and how its runs went.
struct Result {
    contender: Contender,
    samples: Vec<Sample>,
}

fn main() {
    let options = Options::from_args();
    println!("host: {}", host::describe());
    println!("figures: 1 vCPU, 128 MiB, {} runs in turns after {WARM_UP_RUNS} to warm up", options.runs);
    println!(
        "         to the byte: process start to the guest's byte on stdout; to the end: from there to the process's end\n"
    );

    let folder = tempfile::tempdir().unwrap();
    let mut results = Vec::new();
    let mut contenders = contenders::all(folder.path());
    if options.devices {
        contenders.retain(|contender| contender.name == contenders::YARDSTICK);
        contenders.extend(devices::all(folder.path()));
    }
    for contender in contenders {
        let wanted =
            options.only.is_empty() || options.only.iter().any(|name| contender.name.contains(name.as_str()));
        // The yardstick takes part always.
        if !wanted && contender.name != contenders::YARDSTICK {
            continue;
        }
        match run::within(&contender, Duration::from_secs(20)) {
            Ok(()) => results.push(Result { contender, samples: Vec::new() }),
            Err(reason) => println!("without {}: {reason}", contender.name),
        }
    }
    for turn in 0..WARM_UP_RUNS + options.runs {
        for result in &mut results {
            let sample = run::once(&result.contender);
            if turn >= WARM_UP_RUNS {
                result.samples.push(sample);
            }
        }
    }

    report::print(&results);
    if options.devices {
        devices::print(&results);
        devices::end();
    }
    let footprint = footprint::measure(folder.path(), &[], || {});
    println!("\n{footprint}");
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&results, &footprint))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
