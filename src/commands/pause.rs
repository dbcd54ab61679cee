//! `rvmm pause ID` and `rvmm resume ID`

use std::process::ExitCode;

use serde_json::json;

use super::Outcome;
use crate::args::VmArgs;
use crate::name::known::{self, PATIENCE};

/// Stops the guest between two instructions.
pub(crate) fn pause(args: &VmArgs) -> Outcome {
    set(args, "pause", "Paused")
}

/// Lets a paused guest go on.
pub(crate) fn resume(args: &VmArgs) -> Outcome {
    set(args, "resume", "Resumed")
}

fn set(args: &VmArgs, what: &'static str, state: &str) -> Outcome {
    known::find(&args.id)?.reach(what, PATIENCE)?.patch("/vm", &json!({"state": state}))?;
    Ok(ExitCode::SUCCESS)
}
