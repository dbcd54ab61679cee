//! rvmm: Linux guests in microVMs, with the ergonomics of a container.
//!
//! Parses the command line, hands over to the verb and turns what it returns into the exit code.

mod args;
mod commands;
mod detach;
mod escape;
mod logging;
mod name;
mod presence;

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::rc::Rc;

use args::{ControlArgs, Invocation, LogArgs, Stop, Verb};
use escape::Escape;
use presence::Presence;

/// The exit code for a command line that is wrong; failures of any other kind exit with 1.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    share_one_heap();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let result = match args::parse(&argv) {
        Ok(invocation) => dispatch(&invocation),
        Err(Stop::Text(text)) => commands::print(text.as_bytes()),
        Err(usage @ Stop::Usage(_)) => Err(usage.into()),
    };
    result.unwrap_or_else(|error| {
        vmm::signals::unblock();
        // A verb may be the first to understand a part of the command line.
        if let Some(Stop::Usage(message)) = error.downcast_ref() {
            complain(&format!("rvmm: {message}"));
            return ExitCode::from(EXIT_USAGE);
        }
        complain(&format!("rvmm: error: {}", chain(error.as_ref())));
        ExitCode::FAILURE
    })
}

/// Keeps glibc from mapping a heap of 64 MiB for each vCPU's thread, none of which allocates much.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) has no wrapper in the standard library")]
fn share_one_heap() {
    // SAFETY: takes two integers, and no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(target_env = "gnu"))]
fn share_one_heap() {}

fn dispatch(invocation: &Invocation) -> commands::Outcome {
    match invocation {
        Invocation::Run(args) => launch(args.id.as_deref(), &args.log, &args.control, |presence| {
            commands::run::run(args, presence)
        }),
        Invocation::Verb(Verb::Restore(args)) => {
            launch(args.id.as_deref(), &args.log, &args.control, |presence| {
                commands::restore::run(args, presence)
            })
        }
        Invocation::Verb(Verb::Ps(args)) => commands::ps::run(args),
        Invocation::Verb(Verb::Inspect(args)) => commands::inspect::run(args),
        Invocation::Verb(Verb::Pause(args)) => commands::pause::pause(args),
        Invocation::Verb(Verb::Resume(args)) => commands::pause::resume(args),
        Invocation::Verb(Verb::Stop(args)) => commands::stop::run(args),
        Invocation::Verb(Verb::Kill(args)) => commands::kill::run(args),
        Invocation::Verb(Verb::Console(args)) => commands::console::run(args),
        Invocation::Verb(Verb::Logs(args)) => commands::logs::run(args),
        Invocation::Verb(Verb::Metrics(args)) => commands::metrics::run(args),
        Invocation::Verb(Verb::Config(args)) => commands::config::run(args),
        Invocation::Verb(Verb::Events(args)) => commands::events::run(args),
        Invocation::Verb(Verb::Rm(args)) => commands::rm::run(args),
        Invocation::Verb(Verb::Snapshot(args)) => commands::snapshot::run(args),
        Invocation::Verb(Verb::Clone(args)) => commands::clone::run(args),
        Invocation::Verb(Verb::ServeMemory(args)) => commands::serve_memory::run(args),
        Invocation::Verb(Verb::Doctor(args)) => commands::doctor::run(args),
        Invocation::Verb(Verb::Bench(args)) => commands::bench::run(&args.words),
        Invocation::Verb(Verb::Completions(args)) => commands::completions::run(args),
        Invocation::Verb(Verb::Man) => commands::man::run(),
    }
}

/// Has `run` run a VM that is called `id` or something, here or in the background.
fn launch(
    id: Option<&str>,
    log: &LogArgs,
    control: &ControlArgs,
    run: impl FnOnce(&Rc<Presence>) -> commands::Outcome,
) -> commands::Outcome {
    if control.detach {
        return commands::detach::run(id, log, run);
    }
    let presence = Rc::new(Presence::new(id));
    logging::start(&log.config(), presence.id(), None)?;
    run(&presence)
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &dyn Error) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// One line on stderr, written at once. Nobody is left to tell when that fails.
fn complain(message: &str) {
    let mut line = String::new();
    let _ = Escape(&mut line).write_str(message);
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}
