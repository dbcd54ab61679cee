//! `rvmm snapshot ID DIR`: has a VM write itself to a folder.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Outcome, fit, print, stop};
use crate::args::CreateArgs;
use crate::name::known::{self, Known, PATIENCE};

/// How long a VM may take to write its memory to a disk, which may be slow.
const WRITING: Duration = Duration::from_secs(3600);
/// What is done to a VM, for messages.
const WHAT: &str = "snapshot";

/// Saves the VM, and says what was written.
pub(super) fn run(args: &CreateArgs) -> Outcome {
    // clap has seen to both.
    let (Some(id), Some(dir)) = (&args.id, &args.dir) else { return Err("ID and DIR are missing".into()) };
    let vm = if args.stop { known::find_whole(id)? } else { known::find(id)? };
    // The VM has a current folder of its own.
    let dir = std::path::absolute(dir)?;
    let base = args.base.as_deref().map(std::path::absolute).transpose()?;
    let process = args.stop.then(|| vm.process(WHAT)).transpose()?;
    let mut body = json!({
        "snapshot_path": text(&dir)?,
        "snapshot_type": if args.diff { "Diff" } else { "Full" },
        "live": !args.stop,
    });
    if let (Some(base), Some(fields)) = (&base, body.as_object_mut()) {
        fields.insert("base".to_owned(), text(base)?.into());
    }
    let was_paused = is_paused(&vm)?;
    if args.stop && !was_paused {
        // Nothing that the guest does may come after what is saved of it.
        set(&vm, "Paused")?;
    }
    let created = vm.reach(WHAT, WRITING)?.put("/snapshot/create", body.to_string());
    if let Err(error) = created {
        if args.stop && !was_paused {
            set(&vm, "Resumed").map_err(|stays| format!("{error}; it stays paused: {stays}"))?;
        }
        return Err(error.into());
    }
    let report = report(&dir, args.json);
    if let Some(process) = process {
        stop::terminate(&vm, &process)?;
    } else if args.resume && was_paused {
        set(&vm, "Resumed").map_err(|error| format!("{} is written, but: {error}", dir.display()))?;
    }
    report
}

fn is_paused(vm: &Known) -> Result<bool, String> {
    let instance = vm.reach(WHAT, PATIENCE)?.json::<Value>("/")?;
    Ok(instance.get("state").is_some_and(|state| state == "Paused"))
}

fn set(vm: &Known, state: &str) -> Result<(), String> {
    vm.reach(WHAT, PATIENCE)?.patch("/vm", &json!({"state": state}))
}

/// A path as JSON has it.
fn text(path: &Path) -> Result<&str, String> {
    path.to_str()
        .ok_or_else(|| format!("{} is not valid UTF-8, which a path in JSON has to be", path.display()))
}

fn report(_dir: &Path, _json: bool) -> Outcome {
    let _ = (fit::print_json(&1), print(b""));
    todo!()
}
