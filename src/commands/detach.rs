//! `--detach`: runs one VM in the background, and prints what it is called once it is there.

use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;

use super::{Outcome, print};
use crate::args::LogArgs;
use crate::detach::{self, Report, Side};
use crate::name::{self, Name};
use crate::presence::Presence;
use crate::{chain, logging};

/// Starts the VM that `run` runs, as `id` or something, and waits until its guest runs; for a VM that is configured over
/// REST, until its socket answers.
pub(crate) fn run(id: Option<&str>, log: &LogArgs, run: impl FnOnce(&Rc<Presence>) -> Outcome) -> Outcome {
    match detach::fork().map_err(|error| format!("cannot start a process in the background: {error}"))? {
        Side::Foreground(started) => match started.wait() {
            Ok(id) => print(format!("{id}\n").as_bytes())
                .map_err(|error| format!("{error}; the VM runs, and is called {id}").into()),
            Err(error) => Err(error.into()),
        },
        Side::Background(report) => Ok(serve(id, log, report, run)),
    }
}

/// In the background: takes a name and a log, lets go of the terminal, and has `run` run the VM.
pub(super) fn serve(
    given: Option<&str>,
    log: &LogArgs,
    report: Report,
    run: impl FnOnce(&Rc<Presence>) -> Outcome,
) -> ExitCode {
    let id = given.map_or_else(name::invent, str::to_owned);
    let name = match prepare(given, log, &id) {
        Ok(name) => name,
        Err(error) => {
            report.failed(&chain(&*error));
            return ExitCode::FAILURE;
        }
    };
    let presence = Rc::new(Presence::detached(id, name, report));
    run(&presence).unwrap_or_else(|error| {
        presence.fail(&chain(&*error));
        ExitCode::FAILURE
    })
}

fn prepare(given: Option<&str>, log: &LogArgs, id: &str) -> Result<Name, Box<dyn Error>> {
    let name = Name::take(id).map_err(|error| match given {
        Some(id) => format!("--id {id}: {error}"),
        None => format!("--detach needs a folder for the VM's name: {error}"),
    })?;
    logging::start(&log.config(), id, Some(&name.log()))?;
    detach::close_stdio().map_err(|error| format!("cannot go to the background: {error}"))?;
    Ok(name)
}
