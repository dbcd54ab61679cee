//! Files and folders that are written beside the place where they are to be, under a hidden name, and renamed when they are
//! whole.
//!
//! A lock on the file tells one that is being written from one that a process left behind when it was killed: the next who
//! writes to the same place takes that over.
#![expect(unsafe_code, reason = "openat(2) and unlinkat(2) have no safe wrapper")]

use std::ffi::{CStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use devices::same_file;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::error::SnapshotError;
use crate::runtime_dir::effective_user;

/// How often a place that others take and leave again is tried.
const MAX_TRIES: usize = 8;

/// The hidden name beside `target`, which has a file name.
pub(super) fn hidden(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".partial");
    target.with_file_name(name)
}

/// Opens what is to be locked, until it is: `open` gives the file and says whether it is still where it was.
pub(super) fn lock(
    target: &Path,
    hidden: &Path,
    mut open: impl FnMut() -> Result<Option<File>, SnapshotError>,
    is_still: impl Fn(&File) -> io::Result<bool>,
) -> Result<File, SnapshotError> {
    let failed = |source| SnapshotError::io("lock", hidden, source);
    for _ in 0..MAX_TRIES {
        // Its last owner ended just now and took it along.
        let Some(file) = open()? else { continue };
        match file.try_lock() {
            Ok(()) if is_still(&file).map_err(failed)? => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Err(SnapshotError::UnderWay { path: target.to_owned() })
}

/// Whether `path` names `file`.
pub(super) fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(same_file(&there, &file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a file or folder is of this user, and nobody else can use it.
pub(super) fn is_private(metadata: &Metadata) -> bool {
    let for_others = metadata.mode() & 0o077;
    metadata.uid() == effective_user() && for_others == 0
}

/// What is at a hidden name and is not private.
pub(super) fn in_the_way(hidden: &Path) -> SnapshotError {
    let why = "is in the way, and others can use it; remove it";
    SnapshotError::Place { path: hidden.to_owned(), why }
}

/// Whether something is mounted at `path`, which then cannot be renamed over (statx(2), Linux 5.8).
pub(super) fn is_mount_point(path: &Path) -> bool {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    let mount_root = StatxAttributes::MOUNT_ROOT.bits();
    found.is_ok_and(|found| found.stx_attributes.bits() & mount_root != 0)
}

/// Makes what was renamed in the folder of `target` last.
pub(super) fn sync_parent(target: &Path) -> Result<(), SnapshotError> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| SnapshotError::io("write to the disk what is in", parent, error))
}

/// A folder that only this user can use, whose files are reached by its descriptor: what its name leads to by now does not
/// matter.
pub(super) struct PrivateFolder {
    path: PathBuf,
    descriptor: File,
}

impl PrivateFolder {
    /// Makes the folder `path`, or opens the one that is there.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, SnapshotError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(SnapshotError::io("make the folder", path, error));
            }
            _ => {}
        }
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let descriptor = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SnapshotError::io("open the folder", path, error)),
        };
        let metadata =
            descriptor.metadata().map_err(|error| SnapshotError::io("open the folder", path, error))?;
        if is_private(&metadata) {
            Ok(Some(Self { path: path.to_owned(), descriptor }))
        } else {
            Err(in_the_way(path))
        }
    }

    /// The folder itself.
    pub(super) fn descriptor(&self) -> &File {
        &self.descriptor
    }

    /// Opens the file `name` for reading and writing. With `O_EXCL` among `flags` it must not be there; else it need not.
    pub(super) fn create(&self, name: &CStr, flags: libc::c_int) -> Result<File, SnapshotError> {
        let flags =
            flags | libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the descriptor is open and the name ends in a NUL; the kernel keeps neither.
        let descriptor = unsafe { libc::openat(self.descriptor.as_raw_fd(), name.as_ptr(), flags, 0o600) };
        if descriptor < 0 {
            return Err(SnapshotError::io("make", &self.at(name), io::Error::last_os_error()));
        }
        // SAFETY: the kernel made this descriptor just now, and nobody else has it.
        Ok(unsafe { File::from_raw_fd(descriptor) })
    }

    /// Removes the file `name`, if it is there.
    pub(super) fn remove(&self, name: &CStr) {
        // SAFETY: as for `create`.
        unsafe { libc::unlinkat(self.descriptor.as_raw_fd(), name.as_ptr(), 0) };
    }

    /// Where the file `name` is.
    pub(super) fn at(&self, name: &CStr) -> PathBuf {
        self.path.join(name.to_str().unwrap_or_default())
    }
}
