//! `rvmm stop ID`: asks the guest to end, then rvmm, and then does not ask.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Outcome;
use crate::args::StopArgs;
use crate::name::known::{self, Known, PATIENCE};
use crate::name::process::Process;

/// How long rvmm has to end its guest when it is asked by SIGTERM, and the host to end a process that is killed.
const FORCED: Duration = Duration::from_secs(10);
/// How long a VM that is being saved has for that, at least.
const SAVING: Duration = Duration::from_mins(1);
/// What such a VM says.
const BEING_SAVED: &str = "the VM is being saved";
/// How long a guest has to power off before Ctrl-Alt-Del is pressed as well: not all guests listen to their power button.
const BUTTON: Duration = Duration::from_secs(2);
/// How long a VM has for an answer, however little time its guest is given.
const LEAST_PATIENCE: Duration = Duration::from_millis(500);
/// The exit code when the guest did not end by itself, and SIGTERM was needed.
const EXIT_TERMINATED: u8 = 3;
/// The exit code when SIGKILL was needed.
const EXIT_KILLED: u8 = 4;

/// Ends a VM; the exit code says how it took it.
pub(crate) fn run(args: &StopArgs) -> Outcome {
    let vm = known::find_whole(&args.vm.id)?;
    let process = vm.process("stop")?;
    let failed = |error| format!("cannot stop {}: {error}", vm.id);
    let pressed = Instant::now();
    match press_power_button(&vm, args.timeout) {
        Ok(resets) => {
            let mut ended = process.wait(BUTTON.min(args.timeout / 2)).map_err(failed)?;
            if !ended {
                if resets == Resets::EndIt {
                    // A guest that is on its way already need not hear it.
                    let _ = press_ctrl_alt_del(&vm, args.timeout);
                }
                ended = process.wait(args.timeout.saturating_sub(pressed.elapsed())).map_err(failed)?;
            }
            if ended {
                return Ok(ExitCode::SUCCESS);
            }
        }
        // The VM ends by itself when its snapshot is written: `rvmm snapshot --stop`.
        Err(error) if error.contains(BEING_SAVED) => {
            if process.wait(args.timeout.max(SAVING)).map_err(failed)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        // Nobody there to hear it.
        Err(_) if process.wait(Duration::ZERO).map_err(failed)? => return Ok(ExitCode::SUCCESS),
        Err(_) => {}
    }
    if terminate(&vm, &process)? {
        eprintln!("rvmm: the guest of {} did not end by itself: rvmm was ended by SIGTERM", vm.id);
        return Ok(ExitCode::from(EXIT_TERMINATED));
    }
    eprintln!("rvmm: {} did not end by itself, nor by SIGTERM: it was killed", vm.id);
    Ok(ExitCode::from(EXIT_KILLED))
}

/// Waits for a VM that ends by itself; one that does not is ended.
pub(super) fn wait(vm: &Known, process: &Process) -> Result<(), String> {
    let failed = |error| format!("cannot stop {}: {error}", vm.id);
    if process.wait(FORCED).map_err(failed)? { Ok(()) } else { terminate(vm, process).map(drop) }
}

/// Ends the VM's process, whatever its guest does; whether SIGTERM was enough, and it need not be killed.
fn terminate(vm: &Known, process: &Process) -> Result<bool, String> {
    let failed = |error| format!("cannot stop {}: {error}", vm.id);
    process.signal(libc::SIGTERM).map_err(failed)?;
    if process.wait(FORCED).map_err(failed)? {
        return Ok(true);
    }
    process.signal(libc::SIGKILL).map_err(failed)?;
    if process.wait(FORCED).map_err(failed)? {
        vm.clear()?;
        return Ok(false);
    }
    Err(format!("cannot stop {}: the host does not end its process, which was killed", vm.id))
}

/// What a reset by the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resets {
    /// It ends the VM.
    EndIt,
    /// The guest boots again.
    RestartIt,
}

/// Presses the power button, which a guest that is paused has to be awake for; what a reset would do.
fn press_power_button(vm: &Known, patience: Duration) -> Result<Resets, String> {
    let asked = vm.reach("stop", patience.clamp(LEAST_PATIENCE, PATIENCE))?;
    let instance = asked.json::<Value>("/rvmm/instance")?;
    let is = |key, value| instance.get(key).is_some_and(|found| found == value);
    if is("state", "Paused") {
        asked.patch("/vm", &json!({"state": "Resumed"}))?;
    }
    asked.put("/rvmm/actions", json!({"action_type": "PressPowerButton"}).to_string())?;
    Ok(if is("on_reset", "restart") { Resets::RestartIt } else { Resets::EndIt })
}

/// Presses Ctrl-Alt-Del.
fn press_ctrl_alt_del(vm: &Known, patience: Duration) -> Result<(), String> {
    let asked = vm.reach("stop", patience.clamp(LEAST_PATIENCE, PATIENCE))?;
    asked.put("/actions", json!({"action_type": "SendCtrlAltDel"}).to_string())
}
