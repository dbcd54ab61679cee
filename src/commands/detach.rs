//! `rvmm --detach …`: runs one VM in the background, and prints what it is called once it is there.

use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;

use super::{Outcome, print, run};
use crate::args::RunArgs;
use crate::detach::{self, Report, Side};
use crate::name::{self, Name};
use crate::presence::Presence;
use crate::{chain, logging};

/// Starts the VM that the options describe, and waits until its guest runs; for a VM that is configured over REST, until
/// its socket answers.
pub(crate) fn run(args: &RunArgs) -> Outcome {
    match detach::fork().map_err(|error| format!("cannot start a process in the background: {error}"))? {
        Side::Foreground(Ok(id)) => print(format!("{id}\n").as_bytes())
            .map_err(|error| format!("{error}; the VM runs, and is called {id}").into()),
        Side::Foreground(Err(error)) => Err(error.into()),
        Side::Background(report) => Ok(serve(args, report)),
    }
}

/// In the background: takes a name and a log, lets go of the terminal, and runs the VM.
fn serve(args: &RunArgs, report: Report) -> ExitCode {
    let id = args.id.clone().unwrap_or_else(name::invent);
    let name = match prepare(args, &id) {
        Ok(name) => name,
        Err(error) => {
            report.failed(&chain(&*error));
            return ExitCode::FAILURE;
        }
    };
    let presence = Rc::new(Presence::detached(id, name, report));
    run::run(args, &presence).unwrap_or_else(|error| {
        presence.fail(&chain(&*error));
        ExitCode::FAILURE
    })
}

fn prepare(args: &RunArgs, id: &str) -> Result<Name, Box<dyn Error>> {
    let name = Name::take(id).map_err(|error| match &args.id {
        Some(id) => format!("--id {id}: {error}"),
        None => format!("--detach needs a folder for the VM's name: {error}"),
    })?;
    logging::start(&args.log.config(), id, Some(&name.log()))?;
    detach::close_stdio().map_err(|error| format!("cannot go to the background: {error}"))?;
    Ok(name)
}
