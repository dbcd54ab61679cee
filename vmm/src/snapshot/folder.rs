//! A snapshot that is there, opened and checked; and a chain of diffs down to the snapshot that has all of memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::SnapshotError;
use super::regular;
use super::seal::{MAX_STATE_SIZE, Seal};
use super::state::{BaseV1, StateV1};
use crate::config::VmConfig;
use crate::memory::{Overlay, Source};

/// Diffs on top of one another that are followed.
pub const MAX_DEPTH: usize = 64;

/// One snapshot. Its state is checked, its memory file is as long as it should be.
#[derive(Debug)]
pub struct Folder {
    /// The folder, or the state file of a snapshot of two files.
    pub path: PathBuf,
    /// What it says.
    pub state: StateV1,
    /// The configuration that is in it.
    pub config: VmConfig,
    /// The digest of the state, by which diffs know their base.
    pub seal: Seal,
    /// Its memory file, and where that is.
    pub memory: Arc<File>,
    /// Where the memory file is.
    pub memory_path: PathBuf,
}

/// A state without the memory that belongs to it.
#[derive(Debug)]
pub struct StateFile {
    /// What it says.
    pub state: StateV1,
    /// The configuration that is in it.
    pub config: VmConfig,
    /// Its digest.
    pub seal: Seal,
}

impl StateFile {
    /// Reads the state of the snapshot in the folder `dir`.
    ///
    /// # Errors
    /// As [`Self::read`], and when there is none in it.
    pub fn in_folder(dir: &Path) -> Result<Self, SnapshotError> {
        Self::read(&dir.join("state")).map_err(|error| {
            if regular::is_missing(&error) {
                SnapshotError::NoSnapshot { path: dir.to_owned() }
            } else {
                error
            }
        })
    }

    /// Reads the state file `path`.
    ///
    /// # Errors
    /// [`SnapshotError`] when it cannot be read, or is no state of this format.
    pub fn read(path: &Path) -> Result<Self, SnapshotError> {
        let bytes = regular::read(path, MAX_STATE_SIZE)?;
        let (state, config, seal) =
            StateV1::decode(&bytes).map_err(|error| SnapshotError::broken(path, error.to_string()))?;
        Ok(Self { state, config, seal })
    }
}

impl Folder {
    /// Opens the snapshot in the folder `dir`.
    ///
    /// # Errors
    /// [`SnapshotError`] names the file that is missing or broken.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        Self::of_files(StateFile::in_folder(dir)?, &dir.join("memory"), dir, regular::open_itself)
    }

    /// Opens a snapshot of two files.
    ///
    /// # Errors
    /// [`SnapshotError`] names the file that is missing or broken.
    pub fn open_files(state: &Path, memory: &Path) -> Result<Self, SnapshotError> {
        Self::of_files(StateFile::read(state)?, memory, state, regular::open)
    }

    fn of_files(
        state: StateFile,
        memory_path: &Path,
        path: &Path,
        open: impl FnOnce(&Path) -> Result<File, SnapshotError>,
    ) -> Result<Self, SnapshotError> {
        let StateFile { state, config, seal } = state;
        let memory = open(memory_path)?;
        let found = memory.metadata().map_err(|error| SnapshotError::io("open", memory_path, error))?.len();
        let wanted = state.memory.len();
        if found != wanted {
            let message = format!(
                "has {found} bytes instead of {wanted}; it was cut or added to, take another copy of it"
            );
            return Err(SnapshotError::broken(memory_path, message));
        }
        let (path, memory_path) = (path.to_owned(), memory_path.to_owned());
        Ok(Self { path, state, config, seal, memory: Arc::new(memory), memory_path })
    }

    /// Whether it is a folder, and not two files.
    pub fn in_folder(&self) -> bool {
        self.memory_path == self.path.join("memory")
    }

    /// What a diff on top of this snapshot says of it.
    ///
    /// # Errors
    /// When the current folder is gone, and the path is not from the root.
    pub fn as_base(&self) -> Result<BaseV1, SnapshotError> {
        use std::os::unix::ffi::OsStrExt as _;
        let absolute = |path: &Path| {
            let absolute =
                std::path::absolute(path).map_err(|error| SnapshotError::io("find", path, error))?;
            Ok::<_, SnapshotError>(absolute.as_os_str().as_bytes().to_vec())
        };
        Ok(BaseV1 {
            id: self.state.id,
            seal: self.seal,
            path: self.path.as_os_str().as_bytes().to_vec(),
            absolute: absolute(&self.path)?,
            memory: if self.in_folder() { Vec::new() } else { absolute(&self.memory_path)? },
        })
    }

    /// Opens the snapshot that this one is on top of.
    fn open_base(&self, base: &BaseV1) -> Result<Self, SnapshotError> {
        let (path, recorded) = (self.path.clone(), base.absolute().to_owned());
        let beside = self.path.parent().zip(recorded.file_name()).map(|(parent, name)| parent.join(name));
        let mut found = None;
        for place in [Some(recorded.clone()), beside].into_iter().flatten() {
            let opened = match base.memory() {
                Some(memory) => Self::open_files(&place, memory),
                None => Self::open(&place),
            };
            match opened {
                Ok(folder) if is_base(&folder, base) => return Ok(folder),
                Ok(_) => found = Some(SnapshotError::OtherBase { path: path.clone(), base: place }),
                Err(error) if regular::is_missing(&error) => {}
                Err(error) => found = Some(error),
            }
        }
        Err(found.unwrap_or(SnapshotError::NoBase { path, base: recorded }))
    }
}

fn is_base(folder: &Folder, base: &BaseV1) -> bool {
    (folder.state.id, folder.seal) == (base.id, base.seal)
}

/// A snapshot with all that it is on top of.
#[derive(Debug)]
pub struct Chain {
    /// The snapshot that was asked for.
    top: Folder,
    /// What is below it, the next one first; the last of all has all of memory.
    below: Vec<Folder>,
}

impl Chain {
    /// Opens the snapshot in the folder `dir`, and what it is on top of.
    ///
    /// # Errors
    /// [`SnapshotError`] names the folder that is missing, changed or broken.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        Self::of(Folder::open(dir)?)
    }

    /// Opens what `folder` is on top of.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(folder: Folder) -> Result<Self, SnapshotError> {
        let mut chain = Self { top: folder, below: Vec::new() };
        while let Some(mut base) = chain.open_next()? {
            // Of those below, memory is all that is wanted.
            base.state.sections = Vec::new();
            chain.below.push(base);
        }
        Ok(chain)
    }

    /// The snapshot that the lowest one so far is on top of, if there is one.
    fn open_next(&self) -> Result<Option<Folder>, SnapshotError> {
        let lowest = self.lowest();
        let Some(base) = &lowest.state.base else { return Ok(None) };
        if self.folders().any(|folder| folder.state.id == base.id) {
            return Err(SnapshotError::Loop { path: lowest.path.clone() });
        }
        if self.below.len() >= MAX_DEPTH {
            return Err(SnapshotError::TooDeep { path: self.top.path.clone(), limit: MAX_DEPTH });
        }
        let below = lowest.open_base(base)?;
        if below.state.memory.regions != lowest.state.memory.regions {
            let message = format!("has another size of memory than its base {}", below.path.display());
            return Err(SnapshotError::broken(&lowest.path, message));
        }
        Ok(Some(below))
    }

    /// The snapshot that was asked for.
    pub fn top(&self) -> &Folder {
        &self.top
    }

    /// The snapshot that was asked for, to keep.
    pub fn into_top(self) -> Folder {
        self.top
    }

    /// The snapshots that it is on top of, the next one first.
    pub fn below(&self) -> &[Folder] {
        &self.below
    }

    /// All of them, the one that was asked for first.
    pub fn folders(&self) -> impl DoubleEndedIterator<Item = &Folder> {
        std::iter::once(&self.top).chain(&self.below)
    }

    /// The one that all others are on top of.
    fn lowest(&self) -> &Folder {
        self.below.last().unwrap_or(&self.top)
    }

    /// The files that memory comes from.
    pub fn source(&self) -> Source {
        let overlays = self.folders().rev().skip(1).map(|diff| Overlay {
            file: diff.memory.clone(),
            pages: diff.state.memory.pages().into_ranges(),
        });
        Source { base: self.lowest().memory.clone(), overlays: overlays.collect() }
    }
}
