//! Copies of disk images: by sharing data where the file system can, else byte by byte without the holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

use crate::memory::data_extents;

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

/// Makes `to` share all data of `from` until one of them is written to (FICLONE, ioctl_ficlonerange(2)). Returns whether
/// the file system can: btrfs and XFS do, and both files have to be on the same one.
///
/// # Errors
/// What the host said, as for a full disk.
pub fn reflink(from: &File, to: &File) -> io::Result<bool> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        Err(
            Errno::NOTSUP
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NOTTY
            | Errno::NOSYS
            | Errno::PERM
            | Errno::TXTBSY,
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Which file a copy failed with.
#[derive(Debug)]
pub enum DiskCopyError {
    /// The image that is read.
    Read(io::Error),
    /// The copy.
    Write(io::Error),
}

/// Copies the first `size` bytes of `from` to the empty file `to`. Holes of one are holes of the other.
///
/// # Errors
/// What the host said of either file.
pub fn copy_sparse(from: &File, to: &File, size: u64) -> Result<(), DiskCopyError> {
    to.set_len(size).map_err(DiskCopyError::Write)?;
    let mut buffer = vec![0; CHUNK];
    for extent in data_extents(from, size) {
        let mut at = extent.start;
        while at < extent.end {
            let left = usize::try_from(extent.end - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = buffer.get_mut(..left).unwrap_or_default();
            from.read_exact_at(chunk, at).map_err(DiskCopyError::Read)?;
            to.write_all_at(chunk, at).map_err(DiskCopyError::Write)?;
            at += left as u64;
        }
    }
    Ok(())
}
