//! `rvmm bench …`: another program, which is beside this one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::Outcome;

/// The program's name.
const PROGRAM: &str = "rvmm-bench";

/// Becomes `rvmm-bench` with `words`. It is told which rvmm to measure: this one.
///
/// # Errors
/// There is no such program.
pub(crate) fn run(words: &[OsString]) -> Outcome {
    let own = env::current_exe().ok();
    let beside = own.as_ref().map(|own| own.with_file_name(PROGRAM)).filter(|path| path.is_file());
    let mut command = Command::new(beside.unwrap_or_else(|| PathBuf::from(PROGRAM)));
    command.args(words);
    if let Some(own) = own
        && env::var_os("RVMM_PROGRAM").as_deref().is_none_or(OsStr::is_empty)
    {
        command.env("RVMM_PROGRAM", own);
    }
    let error = command.exec();
    let hint = "it belongs beside rvmm or on PATH, and cargo build --release makes both";
    Err(format!("{PROGRAM} cannot be started: {error}; {hint}").into())
}
