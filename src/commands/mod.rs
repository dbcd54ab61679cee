//! The verbs, one file each.

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod detach;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod metrics;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod stop;

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// How a verb ends: the exit code, or an error for `main` to report.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Writes a verb's product to stdout. A reader that has gone (`rvmm man | head`) is no error.
pub(crate) fn print(text: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}").into())
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Says that a follower was too slow, on a line of its own.
fn note_loss() {
    eprintln!("\nrvmm: some of it came too fast and is lost; here is the last of it again");
}
