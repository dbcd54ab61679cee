//! A new snapshot of two files, wherever they are to be, without a manifest: what the REST API's paths ask for.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::beside;
use super::error::SnapshotError;
use super::marker;
use super::state::StateV2;

/// A file that is being written beside its place. Dropping it removes it.
pub(super) struct PartialFile {
    target: PathBuf,
    hidden: PathBuf,
    file: File,
    renamed: bool,
}

impl PartialFile {
    /// Makes the hidden file for one at `path`.
    pub(super) fn begin(path: &Path) -> Result<Self, SnapshotError> {
        let target = place(path)?;
        let hidden = beside::hidden(&target);
        let open = || open(&hidden).map(Some);
        let file = beside::lock(&target, &hidden, open, |file| beside::is_still(file, &hidden))?;
        let partial = Self { target, hidden, file, renamed: false };
        partial.file.set_len(0).map_err(|error| partial.error(error))?;
        Ok(partial)
    }

    /// Writes all of it to the disk.
    pub(super) fn fill(&self, bytes: &[u8]) -> Result<(), SnapshotError> {
        (&self.file).write_all(bytes).and_then(|()| self.file.sync_all()).map_err(|error| self.error(error))
    }

    fn error(&self, source: io::Error) -> SnapshotError {
        SnapshotError::io("write", &self.hidden, source)
    }

    /// Gives it its name.
    pub(super) fn rename(&mut self) -> Result<(), SnapshotError> {
        fs::rename(&self.hidden, &self.target)
            .map_err(|error| SnapshotError::io("make", &self.target, error))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.renamed
            && let Err(error) = fs::remove_file(&self.hidden)
        {
            log::warn!("{} stays behind: {error}", self.hidden.display());
        }
    }
}

/// Opens the hidden file, or makes it.
fn open(hidden: &Path) -> Result<File, SnapshotError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let failed = |error| SnapshotError::io("make", hidden, error);
    let file = options.open(hidden).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && beside::is_private(&metadata) {
        return Ok(file);
    }
    Err(beside::in_the_way(hidden))
}

/// Where the file `path` will be, from the root. What is there is a regular file, or nothing.
fn place(path: &Path) -> Result<PathBuf, SnapshotError> {
    let failed = |error| SnapshotError::io("make", path, error);
    let refused = |why| SnapshotError::Place { path: path.to_owned(), why };
    let target = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(refused("is no regular file; name another")),
        Ok(_) => fs::canonicalize(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path).map_err(failed)?,
        Err(error) => return Err(failed(error)),
    };
    if beside::is_mount_point(&target) {
        return Err(refused(
            "is a mount point, which cannot be replaced; name a file beside it, or another folder",
        ));
    }
    match (target.file_name(), target.parent()) {
        (Some(_), Some(parent)) if parent.is_dir() => Ok(target),
        (None, _) => Err(refused("is no name of a file; name one")),
        _ => Err(refused("is in a folder that is not there; make that first")),
    }
}

/// A snapshot of two files that is being written, each beside its place. Dropping it removes them.
pub struct PartialPair {
    state: PartialFile,
    memory: PartialFile,
}

impl PartialPair {
    /// Makes the hidden files for a snapshot whose state is to be at `state` and whose memory is to be at `memory`. Files
    /// that are there are replaced by [`Self::commit`].
    ///
    /// # Errors
    /// [`SnapshotError::Place`] for what cannot be replaced; [`SnapshotError::UnderWay`] while another writes there, or when
    /// both paths are one; or what the host said.
    pub fn begin(state: &Path, memory: &Path) -> Result<Self, SnapshotError> {
        Ok(Self { state: PartialFile::begin(state)?, memory: PartialFile::begin(memory)? })
    }

    /// The file for guest memory: see [`super::memory_file::write`].
    pub fn memory(&self) -> &File {
        &self.memory.file
    }

    /// What an error with [`Self::memory`] is.
    pub fn memory_error(&self, source: io::Error) -> SnapshotError {
        self.memory.error(source)
    }

    /// Marks the memory, adds `state`, has both written to the disk, and gives them their names.
    ///
    /// A crash between the two leaves the old memory, and its old state if that has another name. Where the file system
    /// has no markers, an old state of the same name is removed first, so that it is never read with the new memory.
    ///
    /// # Errors
    /// What the host said. The hidden files are removed then.
    pub fn commit(mut self, state: &mut StateV2) -> Result<(), SnapshotError> {
        marker::mark(&self.memory.file, state).map_err(|error| self.memory.error(error))?;
        let (bytes, _) =
            state.encode().map_err(|error| SnapshotError::broken(&self.state.target, error.to_string()))?;
        self.state.fill(&bytes)?;
        self.memory.file.sync_all().map_err(|error| self.memory.error(error))?;
        if state.memory.is_marked {
            self.state.rename()?;
            beside::sync_parent(&self.state.target)?;
            self.memory.rename()?;
            return beside::sync_parent(&self.memory.target);
        }
        match fs::remove_file(&self.state.target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SnapshotError::io("replace", &self.state.target, error));
            }
            _ => beside::sync_parent(&self.state.target)?,
        }
        self.memory.rename()?;
        beside::sync_parent(&self.memory.target)?;
        self.state.rename()?;
        beside::sync_parent(&self.state.target)
    }
}
