//! Whether a snapshot is what was written: the digests of all its files, and of those that it is on top of.

use std::path::{Path, PathBuf};

use super::digest::{self, hex};
use super::error::SnapshotError;
use super::folder::{Chain, Folder};
use super::manifest::Manifest;
use super::seal::MAX_STATE_SIZE;
use super::{regular, working_set};

/// A snapshot whose files are what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its folder, or its state file.
    pub path: PathBuf,
    /// Bytes of memory that were compared; `None` for a snapshot of two files, of whose memory there is no digest.
    pub memory: Option<u64>,
}

/// Reads all of the snapshot in the folder `dir`, and of those that it is on top of, and compares the digests. They are
/// listed, `dir` first.
///
/// # Errors
/// [`SnapshotError`] names the first file that is missing, broken, or not what was written.
pub fn verify(dir: &Path) -> Result<Vec<Verified>, SnapshotError> {
    let chain = Chain::open(dir)?;
    working_set::read(dir, chain.top().state.memory.len())?;
    chain.folders().map(verify_folder).collect()
}

fn verify_folder(folder: &Folder) -> Result<Verified, SnapshotError> {
    let path = folder.path.clone();
    if !folder.in_folder() {
        return Ok(Verified { path, memory: None });
    }
    let manifest = Manifest::read(&path)?;
    let differs = |file: PathBuf| {
        SnapshotError::broken(
            &file,
            "does not match its SHA-256 in manifest.json; it is damaged, take another copy of it",
        )
    };
    let state = path.join("state");
    if manifest.id != hex(&folder.state.id) {
        let message = "is of another snapshot than the state beside it; take another copy of both";
        return Err(SnapshotError::broken(&path.join("manifest.json"), message));
    }
    if manifest.state.sha256 != hex(&digest::of_bytes(&regular::read(&state, MAX_STATE_SIZE)?)) {
        return Err(differs(state));
    }
    let contents = digest::of_memory(&folder.memory, folder.state.memory.len())
        .map_err(|error| SnapshotError::io("read", &folder.memory_path, error))?;
    if manifest.memory.pages_sha256 != hex(&contents.sha256) {
        return Err(differs(folder.memory_path.clone()));
    }
    Ok(Verified { path, memory: Some(contents.in_use) })
}
