//! One snapshot with all of memory, made of a chain of diffs.

use std::path::Path;

use devices::random;

use super::error::SnapshotError;
use super::folder::Chain;
use super::manifest::Manifest;
use super::memory_file;
use super::pages::Pages;
use super::partial::Partial;
use crate::config::IncludeDisks;

/// Writes to the folder `out` a snapshot of the same moment of the same VM as the diff in `dir`, that needs no other. It has
/// an id of its own. `dir` and what it is on top of stay as they are.
///
/// # Errors
/// [`SnapshotError`] for a chain that cannot be read, or a place that cannot be written. Nothing is at `out` then.
pub fn merge(dir: &Path, out: &Path) -> Result<Manifest, SnapshotError> {
    let chain = Chain::open(dir)?;
    let mut partial = Partial::begin(out)?;
    let top = chain.top();
    let mut state = top.state.clone();
    random::fill(&mut state.id).map_err(|error| SnapshotError::io("make an id for", out, error))?;
    state.base = None;
    state.memory.pages = None;
    partial.memory().set_len(state.memory.len()).map_err(|error| partial.memory_error(error))?;
    // The uppermost that has a page is the one that counts.
    let mut above = Pages::default();
    for folder in chain.folders() {
        let pages = folder.state.memory.pages();
        memory_file::copy(partial.memory(), &folder.memory, &pages.without(&above))
            .map_err(|failed| failed.naming(&folder.memory_path, |error| partial.memory_error(error)))?;
        above = above.union(&pages);
    }
    for disk in &mut state.disks {
        let Some(name) = disk.included.take() else { continue };
        disk.included = Some(partial.add_disk(disk, &dir.join(name), IncludeDisks::Copy)?);
    }
    // What processor it was is only in the manifest, which may be gone.
    let cpu = Manifest::read(dir).map(|manifest| manifest.cpu).unwrap_or_default();
    partial.commit(&mut state, &top.config, cpu)
}
