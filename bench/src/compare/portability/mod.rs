//! What an instance takes along, and what its host must have.

mod features;
mod unprivileged;

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::geteuid;

use crate::report::Progress;
use crate::results::{Kind, Portability, Shipped};

use super::contender::{Entry, Order, taking_part};
use super::instance::Instance;
use super::stage::Stage;
use super::task::{MARKER, PROBE, Task};
use super::{interrupt, tree};

use unprivileged::Outcome;

/// Bytes of a block, as stat(2) counts them.
const BLOCK: u64 = 512;

/// Finds out for each contender.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(crate) fn measure(stage: &Stage, entries: &mut [Entry], notes: &mut Vec<String>) -> anyhow::Result<()> {
    // What setting up has left counts as nobody's.
    tree::clear();
    let progress = Progress::phase("portability", taking_part(entries));
    for entry in entries.iter_mut().filter(|entry| entry.takes_part) {
        progress.tick(&entry.result.title);
        let seen = idle(stage, entry);
        tree::clear();
        interrupt::check()?;
        // Who has no rights has seen it already.
        let without_root = (!geteuid().is_root()).then_some(seen.is_ok());
        let host_features = seen.unwrap_or_else(|error| {
            entry.fail("portability", &error);
            Vec::new()
        });
        entry.result.portability = Some(Portability {
            shipped: shipped(stage, entry),
            steps: entry.prepared.steps.clone(),
            without_root,
            without_root_error: None,
            host_features,
            other_kernel: entry.result.kind == Kind::MicroVm,
        });
    }
    if !geteuid().is_root() {
        return Ok(());
    }
    let names: Vec<_> =
        entries.iter().filter(|entry| entry.takes_part).map(|entry| entry.contender.name()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let told = unprivileged::start(stage, &names);
    tree::clear();
    interrupt::check()?;
    let mut told = match told {
        Ok(told) => told,
        Err(error) => {
            notes.push(format!("it is not known what starts for a user without rights: {error:#}"));
            return Ok(());
        }
    };
    for entry in entries.iter_mut() {
        let told = told.remove(entry.contender.name());
        if let (Some(told), Some(portability)) = (told, &mut entry.result.portability) {
            (portability.without_root, portability.without_root_error) = match told {
                Outcome::Started => (Some(true), None),
                Outcome::Refused(error) => (Some(false), Some(error)),
                Outcome::Untried(why) => (None, Some(format!("not tried: {why}"))),
            };
        }
    }
    Ok(())
}

/// What the processes of an idle instance use.
fn idle(stage: &Stage, entry: &Entry) -> anyhow::Result<Vec<String>> {
    let id = format!("{}-features", stage.id());
    let mut instance = Instance::start(stage, entry, &Order::new(&id, &Task::idle()))?;
    instance.line(MARKER)?;
    features::used(&tree::descendants())
}

/// What it takes along, without the probe, which only this benchmark needs.
fn shipped(stage: &Stage, entry: &Entry) -> Vec<Shipped> {
    let probe = fs::metadata(stage.rootfs().join(PROBE.trim_start_matches('/'))).ok();
    let ours = stage.path("");
    let mut shipped: Vec<Shipped> = Vec::new();
    for (what, path) in &entry.prepared.ships {
        let image = path.starts_with(&ours) && path.extension().is_some_and(|extension| extension == "ext4");
        let within = if image { probe.as_ref().map_or(0, bytes) } else { 0 };
        let size = on_disk(path, probe.as_ref()).saturating_sub(within);
        match shipped.iter_mut().find(|shipped| shipped.what == *what) {
            Some(shipped) => shipped.size += size,
            None => shipped.push(Shipped { what: what.clone(), size }),
        }
    }
    shipped
}

/// Bytes on disk of a file or of all below a folder, `but` for one file.
fn on_disk(path: &Path, but: Option<&Metadata>) -> u64 {
    // What is named may be a link; what a folder holds is not followed.
    let Ok(file) = fs::metadata(path) else { return 0 };
    if !file.is_dir() {
        return bytes(&file);
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(file) if file.is_dir() => on_disk(&entry.path(), but),
            Ok(file) if but.is_none_or(|but| (but.dev(), but.ino()) != (file.dev(), file.ino())) => {
                bytes(&file)
            }
            _ => 0,
        })
        .sum()
}

fn bytes(file: &Metadata) -> u64 {
    file.blocks() * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_no_room_and_links_are_not_followed() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("inner"))?;
        fs::write(folder.path().join("inner/full"), vec![1; 64 << 10])?;
        fs::File::create(folder.path().join("hole"))?.set_len(1 << 30)?;
        std::os::unix::fs::symlink("/", folder.path().join("root"))?;
        let full = fs::metadata(folder.path().join("inner/full"))?;
        assert!((bytes(&full)..bytes(&full) + (64 << 10)).contains(&on_disk(folder.path(), None)));
        assert!(on_disk(folder.path(), Some(&full)) < 64 << 10);
        assert_eq!(on_disk(&folder.path().join("none"), None), 0);
        Ok(())
    }
}
