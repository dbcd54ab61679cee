//! `rvmm serve-memory DIR --socket PATH`

use std::fmt::Write as _;

use vmm::config::LoggerConfig;
use vmm::memory_server::{self, Image, Options, Report, WORKING_SET, WorkingSet};
use vmm::snapshot::Chain;

use super::{Outcome, print};
use crate::args::ServeMemoryArgs;
use crate::escape::Escape;
use crate::logging;
use crate::start::ExitCode;

/// Serves the memory of a snapshot to VMs until a signal ends it, or the last VM does.
pub(crate) fn run(args: &ServeMemoryArgs) -> Outcome {
    logging::start(&LoggerConfig::default(), "serve-memory", None)?;
    let chain = Chain::open(&args.dir)?;
    let (Some(top), Some(source)) = (chain.top(), chain.source()) else {
        return Err(format!("{} has no memory", args.dir.display()).into());
    };
    let image = Image::new(source, top.state.memory.len())
        .map_err(|error| format!("cannot serve {}: {error}", args.dir.display()))?;
    let path = args.dir.join(WORKING_SET);
    let working_set = if args.record { WorkingSet::Record(path) } else { WorkingSet::Send(path) };
    let options = Options { socket: args.socket.clone(), once: args.once, working_set };
    memory_server::serve(image, &options, |report| tell(report, args.json))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what became of a VM. That nobody reads it is no reason to let the others down.
fn tell(report: &Report, json: bool) {
    let mut text = String::new();
    if json {
        text = serde_json::to_string(report).unwrap_or_default();
    } else {
        let _ = Escape(&mut text).write_str(&line(report));
    }
    let _ = print((text + "\n").as_bytes());
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
