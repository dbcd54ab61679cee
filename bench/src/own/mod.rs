//! rvmm's own figures: `rvmm bench startup`, `restore`, `io` and `api`.
//!
//! Those who take part take turns, A B C A B C…, so that what else the host does meets them all.

pub(crate) mod api;
mod bare;
mod children;
mod client;
mod container;
mod emulated;
mod footprint;
mod host;
pub(crate) mod io;
mod measured;
mod output;
mod programs;
mod progress;
pub(crate) mod restore;
pub(crate) mod startup;
mod summary;
mod tap;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::compare::{interrupt, tree};

/// Runs before those that count.
const WARM_UP_RUNS: usize = 3;

/// Does `measure`, and leaves no process behind, however it ends: not by an error, and not by Ctrl-C.
fn guarded(measure: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    interrupt::catch_and(children::kill_all)?;
    tree::adopt_orphans()?;
    let outcome = measure();
    tree::clear();
    if interrupt::came() {
        eprintln!("rvmm bench: interrupted");
        return Ok(interrupt::exit_code());
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Prints `text`. Whoever reads no further has what was wanted.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write as _};
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Looks whether the file of `--json` can be written, before anything is measured.
///
/// # Errors
/// Its folder is not there, or is not for us to write to.
fn check_json(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).map(|_| ()).with_context(|| format!("{} cannot be written", path.display()))
}

/// Writes what `--json` wants, if it does.
fn write_json(path: Option<&Path>, report: &serde_json::Value) -> anyhow::Result<()> {
    path.map_or(Ok(()), |path| crate::output::write(path, format!("{report:#}\n").as_bytes()))
}
