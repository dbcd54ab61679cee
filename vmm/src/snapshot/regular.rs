//! Opening the files of a snapshot for reading. What is there may be anything, such as a FIFO, which would be waited for.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::error::SnapshotError;

/// Opens the regular file `path`, or what it links to.
pub(super) fn open(path: &Path) -> Result<File, SnapshotError> {
    open_with(path, 0)
}

/// Opens the regular file `path`, which is no link: whoever made a folder has no say in what else the guest reads.
pub(super) fn open_itself(path: &Path) -> Result<File, SnapshotError> {
    open_with(path, libc::O_NOFOLLOW)
}

fn open_with(path: &Path, flags: libc::c_int) -> Result<File, SnapshotError> {
    let failed = |source| SnapshotError::io("open", path, source);
    let refused = || SnapshotError::broken(path, "is no regular file; a snapshot is made of such alone");
    let file =
        match File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags).open(path) {
            // A socket; a link.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ELOOP)) => {
                return Err(refused());
            }
            opened => opened.map_err(failed)?,
        };
    if file.metadata().map_err(failed)?.is_file() { Ok(file) } else { Err(refused()) }
}

/// All of the regular file `path`, or of what it links to, of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, SnapshotError> {
    read_from(&open(path)?, path, most)
}

/// The same of one that is no link.
pub(super) fn read_itself(path: &Path, most: u64) -> Result<Vec<u8>, SnapshotError> {
    read_from(&open_itself(path)?, path, most)
}

fn read_from(file: &File, path: &Path, most: u64) -> Result<Vec<u8>, SnapshotError> {
    let failed = |source| SnapshotError::io("read", path, source);
    let size = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::with_capacity(size.min(most) as usize + 1);
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let message = format!("longer than {most} bytes, which that of a snapshot never is");
        return Err(SnapshotError::broken(path, message));
    }
    Ok(bytes)
}

/// Whether there is nothing at a path, by the error of opening it.
pub(super) fn is_missing(error: &SnapshotError) -> bool {
    match error {
        SnapshotError::NoSnapshot { .. } => true,
        SnapshotError::Io { source, .. } => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
        _ => false,
    }
}
