//! A new snapshot, until it is whole.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::beside::{self, PrivateFolder};
use super::digest;
use super::disk::{self, DiskV2};
use super::disk_copy::{DiskCopyError, copy_sparse, reflink};
use super::error::SnapshotError;
use super::manifest::{Base, Cpu, Manifest, Memory, State};
use super::marker;
use super::seal::MAX_STATE_SIZE;
use super::state::StateV2;
use crate::config::{IncludeDisks, VmConfig};

/// The file with the VM's state.
pub(super) const STATE: &CStr = c"state";
/// The file with its memory.
pub(super) const MEMORY: &CStr = c"memory";
/// The file for people and scripts.
pub(super) const MANIFEST: &CStr = c"manifest.json";

/// A snapshot that is being written, in a hidden folder beside the one that it will be. Dropping it removes it.
pub struct Partial {
    /// The folder that it will be, from the root.
    target: PathBuf,
    hidden: PathBuf,
    folder: PrivateFolder,
    /// Its lock is what makes the folder ours.
    memory: File,
    renamed: bool,
    /// Copies of disks.
    disks: Vec<(CString, File)>,
    /// How long the guest stood still for it.
    pause: Option<Duration>,
}

impl Partial {
    /// Makes the hidden folder for a snapshot in `dir`, which is not there yet or empty. What a process left behind there
    /// that was killed is removed.
    ///
    /// # Errors
    /// [`SnapshotError::Occupied`] and [`SnapshotError::Place`] for what is at `dir`; [`SnapshotError::UnderWay`] while
    /// another writes there; or what the host said.
    pub fn begin(dir: &Path) -> Result<Self, SnapshotError> {
        let target = place(dir)?;
        let hidden = beside::hidden(&target);
        let mut folder = None;
        let open = || {
            folder = PrivateFolder::open(&hidden)?;
            folder.as_ref().map(|folder| folder.create(MEMORY, 0)).transpose()
        };
        let path = hidden.join("memory");
        let memory = beside::lock(&target, &hidden, open, |file| beside::is_still(file, &path))?;
        let Some(folder) = folder else { return Err(SnapshotError::UnderWay { path: target }) };
        let partial = Self { target, hidden, folder, memory, renamed: false, disks: Vec::new(), pause: None };
        partial.folder.remove(STATE);
        partial.folder.remove(MANIFEST);
        partial.remove_left_disks();
        partial.memory.set_len(0).map_err(|error| SnapshotError::io("empty", &path, error))?;
        Ok(partial)
    }

    /// The guest, which ran, stood still for `pause`: the manifest says so.
    pub fn guest_stood_still(&mut self, pause: Duration) {
        self.pause = Some(pause);
    }

    /// The file for guest memory: see [`super::memory_file::write`].
    pub fn memory(&self) -> &File {
        &self.memory
    }

    /// What an error with [`Self::memory`] is.
    pub fn memory_error(&self, source: io::Error) -> SnapshotError {
        SnapshotError::io("write", &self.folder.at(MEMORY), source)
    }

    /// Adds a copy of the image of a drive, which is not written to meanwhile, and returns the name of its file.
    ///
    /// # Errors
    /// [`SnapshotError::NoReflink`] where `include` asks for shared data; or what the host said.
    pub fn add_disk(
        &mut self,
        disk: &DiskV2,
        image: &Path,
        include: IncludeDisks,
    ) -> Result<String, SnapshotError> {
        let from = disk::open(image).map_err(|error| SnapshotError::io("read", image, error))?;
        let name = disk::file_name(&disk.drive_id);
        let c_name = CString::new(name.clone()).unwrap_or_default();
        let copy = self.folder.create(&c_name, libc::O_EXCL)?;
        let path = self.folder.at(&c_name);
        self.disks.push((c_name, copy));
        let Some((_, copy)) = self.disks.last() else { return Ok(name) };
        if include == IncludeDisks::Reflink {
            let shared = reflink(&from, copy).map_err(|error| SnapshotError::io("write", &path, error))?;
            let no_reflink =
                || SnapshotError::NoReflink { drive_id: disk.drive_id.clone(), folder: self.target.clone() };
            return shared.then_some(name).ok_or_else(no_reflink);
        }
        copy_sparse(&from, copy, disk.size).map_err(|failed| match failed {
            DiskCopyError::Read(error) => SnapshotError::io("read", image, error),
            DiskCopyError::Write(error) => SnapshotError::io("write", &path, error),
        })?;
        Ok(name)
    }

    /// Removes copies of disks that a killed process left.
    fn remove_left_disks(&self) {
        for entry in fs::read_dir(&self.hidden).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str().filter(|name| disk::is_file_name(name)) {
                self.folder.remove(&CString::new(name).unwrap_or_default());
            }
        }
    }

    /// Marks the memory, adds `state` and a manifest, has all of it written to the disk, and gives the folder its name.
    ///
    /// # Errors
    /// What the host said, or that something is at the place by now. Nothing is left behind.
    pub fn commit(
        mut self,
        state: &mut StateV2,
        config: &VmConfig,
        cpu: Cpu,
    ) -> Result<Manifest, SnapshotError> {
        let memory = self.memory.metadata().map_err(|error| self.memory_error(error))?;
        let broken = |why: String| SnapshotError::broken(&self.folder.at(STATE), why);
        if memory.len() != state.memory.len() {
            return Err(broken(format!("memory of {} bytes, and not {}", memory.len(), state.memory.len())));
        }
        marker::mark(&self.memory, state).map_err(|error| self.memory_error(error))?;
        let (bytes, _) = state.encode().map_err(|error| broken(error.to_string()))?;
        let manifest = self.manifest(state, config, cpu, &bytes)?;
        let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| broken(error.to_string()))?;
        text.push(b'\n');
        self.add(STATE, &bytes)?;
        self.add(MANIFEST, &text)?;
        self.memory.sync_all().map_err(|error| self.memory_error(error))?;
        for (name, file) in &self.disks {
            file.sync_all().map_err(|error| SnapshotError::io("write", &self.folder.at(name), error))?;
        }
        let failed = |error| SnapshotError::io("write to the disk", &self.hidden, error);
        self.folder.descriptor().sync_all().map_err(failed)?;
        // rename(2) replaces an empty folder, and nothing else.
        fs::rename(&self.hidden, &self.target).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTEMPTY | libc::EEXIST) => SnapshotError::Occupied { path: self.target.clone() },
            _ => SnapshotError::io("make the folder", &self.target, error),
        })?;
        self.renamed = true;
        beside::sync_parent(&self.target)?;
        Ok(manifest)
    }

    fn manifest(
        &self,
        state: &StateV2,
        config: &VmConfig,
        cpu: Cpu,
        bytes: &[u8],
    ) -> Result<Manifest, SnapshotError> {
        start_writing(&self.memory);
        let contents =
            digest::of_memory(&self.memory, state.memory.len()).map_err(|error| self.memory_error(error))?;
        let manifest = Manifest::of(state, config, cpu);
        let memory = Memory {
            in_use: contents.in_use,
            pages_sha256: digest::hex(&contents.sha256),
            ..manifest.memory
        };
        let size = bytes.len() as u64;
        let file = State { size, sha256: digest::hex(&digest::of_bytes(bytes)) };
        let base = manifest.base.map(|base| {
            let path = state.base.as_ref().map(|base| state_file(base.absolute())).unwrap_or_default();
            // The base was read when the VM was made, and is compared by its seal when the diff is.
            let digest = super::regular::read(&path, MAX_STATE_SIZE)
                .map(|bytes| digest::hex(&digest::of_bytes(&bytes)));
            Base { state_sha256: digest.unwrap_or_default(), ..base }
        });
        let pause_us = self.pause.map(|pause| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        Ok(Manifest { memory, state: file, base, pause_us, ..manifest })
    }

    fn add(&self, name: &CStr, bytes: &[u8]) -> Result<(), SnapshotError> {
        let mut file = self.folder.create(name, libc::O_EXCL)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| SnapshotError::io("write", &self.folder.at(name), error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.renamed {
            return;
        }
        let disks = self.disks.iter().map(|(name, _)| name.as_c_str());
        for name in [STATE, MANIFEST, MEMORY].into_iter().chain(disks) {
            self.folder.remove(name);
        }
        if let Err(error) = fs::remove_dir(&self.hidden) {
            log::warn!("{} stays behind: {error}", self.hidden.display());
        }
    }
}

/// The state file of a snapshot by its folder, or by that file.
pub(super) fn state_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("state") } else { path.to_owned() }
}

/// Where the folder `dir` will be, from the root: it is not there, or empty.
fn place(dir: &Path) -> Result<PathBuf, SnapshotError> {
    let failed = |error| SnapshotError::io("make the folder", dir, error);
    let refused = |why| SnapshotError::Place { path: dir.to_owned(), why };
    let target = match fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => return Err(refused("is no folder; name another")),
        Ok(_) if fs::read_dir(dir).map_err(failed)?.next().is_some() => {
            return Err(SnapshotError::Occupied { path: dir.to_owned() });
        }
        Ok(_) if beside::is_mount_point(dir) => {
            return Err(refused("is a mount point, which cannot be replaced; name a folder in it"));
        }
        Ok(_) => fs::canonicalize(dir).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Of what was put there just now, renaming says that it is in the way.
            if fs::symlink_metadata(dir).is_ok_and(|there| there.is_symlink()) {
                return Err(refused("is a link that leads nowhere; remove it, or name another folder"));
            }
            let target = std::path::absolute(dir).map_err(failed)?;
            let parent = target.parent().ok_or_else(|| refused("cannot be made; name another folder"))?;
            if !parent.is_dir() {
                return Err(refused("is in a folder that is not there; make that first"));
            }
            target
        }
        Err(error) => return Err(failed(error)),
    };
    match target.file_name() {
        Some(_) => Ok(target),
        None => Err(refused("cannot be made; name another folder")),
    }
}

/// Has the host begin to write what is in the page cache of `file`, while there is something else to do.
#[expect(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]
fn start_writing(file: &File) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the descriptor is open; the call touches no memory. That it fails does not matter: fsync comes later.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
