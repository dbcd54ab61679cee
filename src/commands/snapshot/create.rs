//! `rvmm snapshot ID DIR`: has a VM write itself to a folder.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use vmm::snapshot::Manifest;

use super::super::{Outcome, fit, print, stop, table};
use crate::args::{CreateArgs, Disks};
use crate::name::known::{self, Known, Life, PATIENCE};

/// How long a VM may take to write its memory to a disk, which may be slow.
const WRITING: Duration = Duration::from_hours(1);
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
    // With --stop the originals stay as they are.
    let disks = args.disks.unwrap_or(if args.stop { Disks::None } else { Disks::Reflink });
    let mut body = json!({
        "snapshot_path": text(&dir)?,
        "snapshot_type": if args.diff { "Diff" } else { "Full" },
        "live": !args.stop,
        "stop": args.stop,
        "disks": match disks {
            Disks::Reflink => "Reflink",
            Disks::Copy => "Copy",
            Disks::None => "None",
        },
    });
    if let (Some(base), Some(fields)) = (&base, body.as_object_mut()) {
        fields.insert("base".to_owned(), text(base)?.into());
    }
    if disks != Disks::None {
        write_back(&vm)?;
    }
    let was_paused = is_paused(&vm)?;
    vm.reach(WHAT, WRITING)?.put("/snapshot/create", body.to_string())?;
    let report = Report::of(&dir);
    if let Some(process) = process {
        stop::wait(&vm, &process)?;
    } else if args.resume && was_paused {
        set(&vm, "Resumed").map_err(|error| format!("{} is written, but: {error}", dir.display()))?;
    }
    let report = report?;
    if args.json {
        return fit::print_json(&report);
    }
    print(fit::text(report.line().as_bytes()).as_bytes())
}

/// Writes to the disk what the page cache has of the VM's disks, so that the guest need not be paused for it. That this
/// fails for a disk does not matter: it is done again, while the guest is paused.
fn write_back(vm: &Known) -> Result<(), String> {
    let config = vm.reach(WHAT, PATIENCE)?.json::<Value>("/vm/config")?;
    let Life::Alive(Some(pid)) = vm.life else { return Ok(()) };
    // Paths that are not from the root are of the VM's current folder.
    let folder = PathBuf::from(format!("/proc/{pid}/cwd"));
    let drives = config.get("drives").and_then(Value::as_array);
    for drive in
        drives.into_iter().flatten().filter(|drive| drive.get("is_read_only") != Some(&Value::Bool(true)))
    {
        if let Some(path) = drive.get("path_on_host").and_then(Value::as_str) {
            let image = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(folder.join(path));
            let _ = image.and_then(|image| image.sync_data());
        }
    }
    Ok(())
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

/// What was written, as the VM put it down.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    kind: &'static str,
    bytes_written: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_us: Option<u64>,
}

impl Report {
    fn of(dir: &Path) -> Result<Self, String> {
        let Manifest { memory, state, base, pause_us, .. } =
            Manifest::read(dir).map_err(|error| crate::chain(&error))?;
        let kind = if base.is_some() { "diff" } else { "full" };
        let bytes_written = memory.in_use.saturating_add(state.size);
        Ok(Self { path: dir.to_owned(), kind, bytes_written, pause_us })
    }

    fn line(&self) -> String {
        let Self { path, kind, bytes_written, pause_us } = self;
        let pause = pause_us.map(|us| {
            format!(", the guest stood still for {} ms", table::milliseconds(Duration::from_micros(us)))
        });
        format!(
            "{}: {kind}, {} written{}\n",
            path.display(),
            table::size(*bytes_written),
            pause.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = |changes: Value| {
            let mut manifest = json!({"format": 1, "id": "ab", "created": "2026", "rvmm_version": "0.1.0", "vcpus": 1,
                "memory": {"size": 128 << 20, "in_use": 3 << 20, "pages_sha256": ""}, "state": {"size": 1 << 20, "sha256": ""}});
            manifest.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
            Report::of(folder.path()).unwrap()
        };
        let dir = folder.path().display();
        assert_eq!(manifest(json!({})).line(), format!("{dir}: full, 4.0 MiB written\n"));
        let diff = manifest(json!({"base": {"id": "", "path": "/b", "state_sha256": ""}, "pause_us": 840}));
        let expected = format!("{dir}: diff, 4.0 MiB written, the guest stood still for 0.8 ms\n");
        assert_eq!(diff.line(), expected);
        std::fs::write(folder.path().join("manifest.json"), "{}").unwrap();
        let error = Report::of(folder.path()).unwrap_err();
        assert!(error.contains("manifest.json: missing field"), "{error}");
    }
}
