//! `rvmm bench compare`: contenders take turns on one host, with one program and one root file system.

mod contender;
pub(crate) mod contenders;
mod density;
mod helper;
pub(crate) mod host;
pub(crate) mod instance;
pub(crate) mod interrupt;
mod isolation;
pub(crate) mod keeper;
mod memory;
mod network;
mod portability;
mod remains;
pub(crate) mod stage;
mod start;
mod task;
mod trace;
pub(crate) mod tree;
mod work;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;

use crate::args::{CompareArgs, Measure};
use crate::output;
use crate::report;
use crate::results::{self, Results, Settings};
use crate::usage::Usage;

use contender::Entry;
use stage::Stage;

/// What "started" means, for all contenders alike.
const DEFINITION: &str = "started: from just before the process is created to the first byte of the marker that the program \
                          prints on its standard output, as it arrives on the pipe to the benchmark";

/// Starts that are not kept.
const WARM_UP: usize = 2;

/// The measurements, in the order in which they are taken.
const MEASURES: [Measure; 6] = [
    Measure::Start,
    Measure::Memory,
    Measure::Isolation,
    Measure::Portability,
    Measure::Density,
    Measure::Work,
];

/// Compares, writes what was asked for, and says what was found.
///
/// # Errors
/// Nothing could be measured, or a file could not be written.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    if args.only.iter().any(|name| name == "help") {
        contenders::list();
        return Ok(ExitCode::SUCCESS);
    }
    for path in [&args.json, &args.html, &args.csv].into_iter().flatten() {
        output::check(path).map_err(|error| Usage(format!("{error:#}")))?;
    }
    interrupt::catch()?;
    let began = Instant::now();
    let stage = Stage::new(args)?;
    tree::adopt_orphans()?;
    let load = host::load();
    let mut entries = contenders::prepared(args, &stage)?;
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let mut results = Results {
        format: results::FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        began: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        seconds: 0.0,
        command: ["rvmm", "bench"].map(str::to_owned).into_iter().chain(words).collect(),
        definition: DEFINITION.to_owned(),
        host: host::describe(load),
        settings: settings(args, &stage),
        contenders: Vec::new(),
        cut_short: None,
        notes: Vec::new(),
    };
    if args.workload.is_some() {
        let note = "--workload is what starts, and whose system calls are counted; all else is measured with the built-in program.";
        results.notes.push(note.to_owned());
    }
    let outcome = MEASURES.into_iter().filter(|&measure| args.wants(measure)).try_for_each(|measure| {
        let outcome = take(measure, args, &stage, &mut entries, &mut results.notes);
        results.contenders = entries.iter().map(|entry| entry.result.clone()).collect();
        results.seconds = began.elapsed().as_secs_f64();
        // Should this process, or the host, not see the end: what was measured until then is there.
        results.cut_short = Some("it was not at its end when this was written".to_owned());
        if let Some(path) = args.json.as_deref().filter(|path| path.is_file() || !path.exists()) {
            let _ = save(&results, path);
        }
        outcome
    });
    results.cut_short = outcome.err().map(|error| format!("{error:#}"));
    results.host.load[1] = host::load();
    results.seconds = began.elapsed().as_secs_f64();
    drop(stage);
    // A terminal that has gone, or a file that cannot be written, does not keep the others from it.
    let printed = report::print(&results);
    let json = args.json.as_deref().map_or(Ok(()), |path| save(&results, path));
    let drawn = report::draw(&results, args.html.as_deref(), args.csv.as_deref());
    json.and(drawn).and(printed)?;
    ensure!(interrupt::came() || results.has_figures(), "nothing was measured; the reasons are above");
    Ok(interrupt::exit_code())
}

fn save(results: &Results, path: &Path) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(results)?;
    text.push(b'\n');
    output::write(path, &text)
}

/// Takes one measurement of all contenders. What a contender does wrong is its own matter; an error ends the comparison.
fn take(
    measure: Measure,
    args: &CompareArgs,
    stage: &Stage,
    entries: &mut [Entry],
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    match measure {
        Measure::Start => start::measure(stage, entries, WARM_UP, args.runs as usize),
        Measure::Memory => memory::measure(stage, entries),
        Measure::Isolation => isolation::measure(stage, entries, notes),
        Measure::Portability => portability::measure(stage, entries, notes),
        Measure::Density => density::measure(stage, entries, args.max_instances as usize),
        Measure::Work => work::measure(stage, entries, args.runs as usize, notes),
    }
}

fn settings(args: &CompareArgs, stage: &Stage) -> Settings {
    Settings {
        runs: args.runs as usize,
        warm_up: WARM_UP,
        guest_memory: stage.guest_memory(),
        guest_cpus: stage::GUEST_CPUS,
        timeout: Duration::from_secs(args.timeout).as_secs_f64(),
        memory_budget: stage.memory_budget,
        max_instances: args.max_instances as usize,
        workload: stage.workload.clone(),
    }
}
