//! A snapshot that is there, opened and checked; and a chain of diffs down to the snapshot that has all of memory.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devices::same_file;

use super::digest::hex;
use super::error::SnapshotError;
use super::marker::{self, Extent, Marker};
use super::pages::Pages;
use super::regular;
use super::seal::{MAX_STATE_SIZE, Seal};
use super::state::{BaseV1, MAX_RANGES, StateV2};
use crate::config::VmConfig;
use crate::memory::{Overlay, Source, data_extents};

/// Diffs on top of one another that are followed.
pub const MAX_DEPTH: usize = 64;
/// Ranges of pages that all diffs of a chain may list: some 64 MiB.
const MAX_CHAIN_RANGES: usize = 2 * MAX_RANGES;
/// Bytes of the largest block that a file system allocates for a page: a huge page of tmpfs.
const LARGEST_BLOCK: u64 = 2 << 20;

/// One snapshot. Its state is checked, its memory file is as long as it should be.
#[derive(Debug)]
pub struct Folder {
    /// The folder, or the state file of a snapshot of two files.
    pub path: PathBuf,
    /// What it says.
    pub state: StateV2,
    /// The configuration that is in it.
    pub config: VmConfig,
    /// The digest of the state, by which diffs know their base.
    pub seal: Seal,
    /// Its memory file, and where that is.
    pub memory: Arc<File>,
    /// Where the memory file is.
    pub memory_path: PathBuf,
    /// The marker of the memory file. One that applies names this snapshot.
    marker: Marker,
}

/// A state without the memory that belongs to it.
#[derive(Debug)]
pub struct StateFile {
    /// What it says.
    pub state: StateV2,
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
            StateV2::decode(&bytes).map_err(|error| SnapshotError::broken(path, error.to_string()))?;
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
        let marker = check_marker(&memory, memory_path, &state)?;
        let (path, memory_path) = (path.to_owned(), memory_path.to_owned());
        Ok(Self { path, state, config, seal, memory: Arc::new(memory), memory_path, marker })
    }

    /// Logs that nothing shows whose memory the file has, for a snapshot whose memory was marked or is named apart.
    fn warn_if_unmarked(&self) {
        if !matches!(self.marker, Marker::Of { .. }) && (self.state.memory.is_marked || !self.in_folder()) {
            log::warn!(
                "{} has no marker, so that it is the memory of {} is not checked; cp -a keeps markers",
                self.memory_path.display(),
                self.path.display()
            );
        }
    }

    /// A diff whose memory file has all of memory by now: a tool has added what the diff lacks.
    fn rebased(mut self) -> Self {
        log::info!("{} has all of memory and is used without a base", self.memory_path.display());
        self.state.base = None;
        self.state.memory.pages = None;
        self
    }

    /// Whether the memory file of a diff has all of memory by now. Firecracker's `snapshot-editor` adds the pages of a diff
    /// to the memory file of its base, which is then loaded with the state of the diff.
    fn is_rebased(&self) -> bool {
        if self.state.base.is_none() || self.in_folder() {
            return false;
        }
        match self.marker {
            Marker::Of { .. } => false,
            Marker::Changed { extent: Extent::Full } => true,
            Marker::Changed { extent: Extent::Diff } | Marker::Absent => self.has_more_than_the_diff(),
        }
    }

    /// Whether the memory file has data far from all pages of the diff.
    fn has_more_than_the_diff(&self) -> bool {
        let len = self.state.memory.len();
        let data = Pages::of(data_extents(&self.memory, len));
        // A file system that does not tell holes has data everywhere.
        if data.bytes() == len {
            return false;
        }
        let around = |range: Range<u64>| {
            range.start / LARGEST_BLOCK * LARGEST_BLOCK..range.end.next_multiple_of(LARGEST_BLOCK)
        };
        let near = Pages::of(self.state.memory.pages().into_ranges().into_iter().map(around).collect());
        !data.without(&near).is_empty()
    }

    /// How many ranges of pages the state lists.
    fn listed_ranges(&self) -> usize {
        self.state.memory.pages.as_ref().map_or(0, Vec::len)
    }

    /// Refuses a memory file that a state names, unless it is marked or beside the state and of the same user: whoever
    /// writes a state has no say in which other file becomes guest memory.
    fn trusted(self) -> Result<Self, SnapshotError> {
        let owner = |path: &Path| {
            let metadata =
                fs::symlink_metadata(path).map_err(|error| SnapshotError::io("look at", path, error))?;
            Ok::<_, SnapshotError>(metadata.uid())
        };
        let is_beside = self.path.parent() == self.memory_path.parent();
        if matches!(self.marker, Marker::Of { .. })
            || is_beside && owner(&self.path)? == owner(&self.memory_path)?
        {
            return Ok(self);
        }
        let message = format!(
            "nothing shows that it is the memory of {}: it has no marker and is in another folder; move it there, or load the \
             chain's full snapshot",
            self.path.display()
        );
        Err(SnapshotError::broken(&self.memory_path, message))
    }

    fn has_memory_of(&self, other: &Self) -> Result<bool, SnapshotError> {
        let metadata = |folder: &Self| {
            folder.memory.metadata().map_err(|error| SnapshotError::io("look at", &folder.memory_path, error))
        };
        Ok(same_file(&metadata(self)?, &metadata(other)?))
    }

    /// Whether it is a folder, and not two files.
    pub fn in_folder(&self) -> bool {
        self.memory_path == self.path.join("memory")
    }

    /// Its state file.
    pub fn state_path(&self) -> PathBuf {
        if self.in_folder() { self.path.join("state") } else { self.path.clone() }
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
        // A chain follows no link to the memory of a base.
        let real = |path: &Path| {
            let real = fs::canonicalize(path).map_err(|error| SnapshotError::io("find", path, error))?;
            Ok::<_, SnapshotError>(real.as_os_str().as_bytes().to_vec())
        };
        Ok(BaseV1 {
            id: self.state.id,
            seal: self.seal,
            path: self.path.as_os_str().as_bytes().to_vec(),
            absolute: absolute(&self.path)?,
            memory: if self.in_folder() { Vec::new() } else { real(&self.memory_path)? },
        })
    }

    /// Opens the snapshot that this one is on top of: where it was, or beside this one.
    fn open_base(&self, base: &BaseV1) -> Result<Self, SnapshotError> {
        let (path, recorded) = (self.path.clone(), base.absolute().to_owned());
        let beside = |file: &Path| Some(self.path.parent()?.join(file.file_name()?));
        let places = [
            Some((recorded.clone(), base.memory().map(Path::to_owned))),
            beside(&recorded).map(|place| (place, base.memory().and_then(beside))),
        ];
        let mut found = None;
        for (place, memory) in places.into_iter().flatten() {
            let opened = match &memory {
                Some(memory) => StateFile::read(&place)
                    .and_then(|state| Self::of_files(state, memory, &place, regular::open_itself))
                    .and_then(Self::trusted),
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

/// The marker of `memory`.
///
/// # Errors
/// It names another snapshot than that of `state`.
fn check_marker(memory: &File, path: &Path, state: &StateV2) -> Result<Marker, SnapshotError> {
    let wanted = Extent::of(state);
    let marker = marker::read(memory);
    let what = match &marker {
        Marker::Of { id, extent } if *id != hex(&state.id) || *extent != wanted => match extent {
            Extent::Full => format!("is the memory of snapshot {id}"),
            Extent::Diff => format!("has the pages of diff {id} only"),
        },
        _ => return Ok(marker),
    };
    let (kind, id) = (wanted.name(), hex(&state.id));
    let message = format!(
        "{what}, and the state is of {kind} snapshot {id}; name the memory file that was written with it"
    );
    Err(SnapshotError::broken(path, message))
}

impl BaseV1 {
    /// Opens this snapshot where it was.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not there any more, or another by now.
    pub fn open(&self) -> Result<Folder, SnapshotError> {
        let path = self.absolute();
        let folder = match self.memory() {
            Some(memory) => Folder::open_files(path, memory)?.trusted()?,
            None => Folder::open(path)?,
        };
        if is_base(&folder, self) {
            return Ok(folder);
        }
        Err(SnapshotError::broken(path, "is another snapshot than this VM's last one; write a full snapshot"))
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
        folder.warn_if_unmarked();
        let folder = if folder.is_rebased() { folder.rebased() } else { folder };
        let mut chain = Self { top: folder, below: Vec::new() };
        let mut ranges = chain.top.listed_ranges();
        while let Some(mut base) = chain.open_next()? {
            ranges += base.listed_ranges();
            if ranges > MAX_CHAIN_RANGES {
                let path = chain.top.path.clone();
                return Err(SnapshotError::TooManyRanges { path, limit: MAX_CHAIN_RANGES });
            }
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
        for folder in self.folders() {
            if folder.has_memory_of(&below)? {
                return Err(SnapshotError::SharedMemory {
                    memory: below.memory_path.clone(),
                    path: folder.path.clone(),
                    other: below.path.clone(),
                });
            }
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
