//! `rvmm serve-memory DIR --socket PATH`

use std::fmt::Write as _;
use std::process::ExitCode;

use vmm::config::LoggerConfig;
use vmm::memory_server::{self, Image, Options, Report, WorkingSet};
use vmm::snapshot::Chain;

use super::lines::Lines;
use super::{Outcome, print};
use crate::args::ServeMemoryArgs;
use crate::escape::Escape;
use crate::logging;

/// Serves the memory of a snapshot to VMs until a signal ends it, or the last VM does.
pub(crate) fn run(args: &ServeMemoryArgs) -> Outcome {
    logging::start(&LoggerConfig::default(), "serve-memory", None)?;
    let chain = Chain::open(&args.dir)?;
    let image = Image::new(chain.source(), chain.top().state.memory.len())
        .map_err(|error| format!("cannot serve {}: {error}", args.dir.display()))?;
    let dir = args.dir.clone();
    let working_set = if args.record { WorkingSet::Record(dir) } else { WorkingSet::Send(dir) };
    let options = Options { socket: args.socket.clone(), once: args.once, working_set };
    let mut lines = None;
    let served = memory_server::serve(image, &options, |report| {
        // Begun with the first, for by now the signals that end this process are not delivered to any thread.
        lines.get_or_insert_with(|| begin(args.json)).say(text(report, args.json) + "\n");
    });
    if let Some(lines) = lines {
        lines.finish();
    }
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Where it is said what became of VMs. That nobody reads it is no reason to let the others down.
fn begin(json: bool) -> Lines {
    let write = |line: &str| drop(print(line.as_bytes()));
    Lines::to(write, if json { |lost| format!("{{\"lost\":{lost}}}\n") } else { note })
}

/// In place of lines that nobody read.
fn note(lost: u64) -> String {
    format!("{lost} lines were lost here\n")
}

/// What became of a VM.
fn text(report: &Report, json: bool) -> String {
    if json {
        return serde_json::to_string(report).unwrap_or_default();
    }
    let mut text = String::new();
    let _ = Escape(&mut text).write_str(&line(report));
    text
}

fn line(report: &Report) -> String {
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let who = report.pid.map_or_else(|| "a VM".to_owned(), |pid| format!("the VM of process {pid}"));
    let recorded = report.recorded.map(|ranges| format!(", recorded {ranges} ranges"));
    let error = report.error.as_ref().map(|error| format!("; it was let go: {error}"));
    format!(
        "{who} was served for {:.3} s: {} faults, {} KiB for them, {} KiB ahead, {} KiB of zeroes{}{}",
        report.seconds,
        report.faults,
        kib(report.asked_bytes),
        kib(report.ahead_bytes),
        kib(report.zero_bytes),
        recorded.unwrap_or_default(),
        error.unwrap_or_default(),
    )
}
