//! Where the programs are that take part.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

pub(crate) use crate::compare::contenders::firecracker::program as firecracker;
use crate::compare::contenders::rvmm::program;
pub(crate) use crate::compare::stage::on_path;

/// The rvmm that is measured: the one that `RVMM_PROGRAM` names (`rvmm bench` names itself), that lies beside this program, or
/// that of PATH.
///
/// # Errors
/// There is none.
pub(crate) fn rvmm() -> anyhow::Result<PathBuf> {
    program().context(
        "there is no rvmm to measure: none beside this program, none on PATH, and RVMM_PROGRAM names none",
    )
}

/// What the rvmm that is measured says of itself, to see which options it knows.
///
/// # Errors
/// It cannot be run.
pub(crate) fn rvmm_help() -> anyhow::Result<String> {
    let rvmm = rvmm()?;
    let output = Command::new(&rvmm).arg("--help").output().with_context(|| rvmm.display().to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether an rvmm with this help knows `option`.
pub(crate) fn has(help: &str, option: &str) -> bool {
    help.split_whitespace().any(|word| word == option)
}
