//! `rvmm kill ID`: sends a signal to the process of a VM.

use std::process::ExitCode;
use std::time::Duration;

use super::Outcome;
use crate::args::KillArgs;
use crate::name::known;

/// How long the host has to end a process that is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the signal. What a VM leaves behind that is killed so goes as well.
pub(crate) fn run(args: &KillArgs) -> Outcome {
    let vm = known::find_whole(&args.vm.id)?;
    let process = vm.process("kill")?;
    let failed = |error| format!("cannot kill {}: {error}", vm.id);
    process.signal(args.signal).map_err(failed)?;
    if args.signal == libc::SIGKILL && process.wait(PATIENCE).map_err(failed)? {
        vm.clear()?;
    }
    Ok(ExitCode::SUCCESS)
}
