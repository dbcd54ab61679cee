//! The file behind a drive: a regular file or a block device of the host.
#![expect(unsafe_code, reason = "fcntl(2), fallocate(2) and ioctl(2)")]

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::warn;

use super::config::BlockConfigError;
use super::request::SECTOR_SIZE;

/// Zeroes that are written at a time where the file system cannot zero a range.
static ZERO_BLOCK: [u8; 64 << 10] = [0; 64 << 10];

/// Discards a range of bytes of a block device: `_IO(0x12, 119)` of linux/fs.h.
const BLKDISCARD: libc::c_ulong = 0x1277;

/// Why a drive cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Its configuration is wrong.
    #[error(transparent)]
    Config(#[from] BlockConfigError),
    /// The host does not open the file.
    #[error("cannot open disk image {} for {access}{mend}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What for.
        access: &'static str,
        /// What to do about it, where that can be told.
        mend: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The host opened the file but does not tell about it.
    #[error("cannot {what} of disk image {}", path.display())]
    Inspect {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It is neither a regular file nor a block device.
    #[error("disk image {} is a {kind}; give a raw image file or a block device", path.display())]
    NotADisk {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It has no sector.
    #[error("disk image {} is empty; give it a size, for example with `truncate -s 1G`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its end is inside a sector.
    #[error(
        "disk image {} has {size} bytes, not a multiple of {SECTOR_SIZE}; pad it with `truncate -s %{SECTOR_SIZE}`",
        path.display()
    )]
    OddSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Somebody else has it open.
    #[error(
        "disk image {} is in use by another rvmm or another process; stop that, copy the image, or give it read-only to both",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The host has no eventfd to give.
    #[error("cannot create an eventfd for the drive")]
    EventFd(#[source] io::Error),
    /// io_uring was asked for and the host does not have it.
    #[error("drive {id}: io_engine Async needs io_uring, which this host refuses; use Sync")]
    NoIoUring {
        /// The drive's id.
        id: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// Whether the guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It may not.
    ReadOnly,
    /// It may.
    ReadWrite,
}

/// An open and locked disk image.
#[derive(Debug)]
pub(super) struct DiskImage {
    file: File,
    sectors: u64,
    is_block_device: bool,
}

impl DiskImage {
    /// Opens `path` and locks it until the image is dropped: for itself when it can be written, else shared.
    ///
    /// # Errors
    /// [`BlockError`] when it is not there, is no disk, has a size that a disk cannot have, or is in use.
    pub(super) fn open(path: &Path, access: Access) -> Result<Self, BlockError> {
        let path_buf = || path.to_path_buf();
        let writable = access == Access::ReadWrite;
        let mut file = OpenOptions::new()
            .read(true)
            .write(writable)
            // Opening a FIFO or a terminal must neither wait nor take it over.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::EISDIR) => BlockError::NotADisk { path: path_buf(), kind: "directory" },
                Some(libc::ENXIO) => {
                    BlockError::NotADisk { path: path_buf(), kind: "socket or device without a driver" }
                }
                _ => {
                    let access = if writable { "writing" } else { "reading" };
                    let denied = matches!(
                        source.raw_os_error(),
                        Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ETXTBSY)
                    );
                    let mend = match (denied, writable) {
                        (true, true) => " (get the right to write it, or make the drive read-only)",
                        (true, false) => " (get the right to read it)",
                        (false, _) => "",
                    };
                    BlockError::Open { path: path_buf(), access, mend, source }
                }
            })?;
        let inspect = |what| move |source| BlockError::Inspect { path: path.to_path_buf(), what, source };

        let metadata = file.metadata().map_err(inspect("read the status"))?;
        let file_type = metadata.file_type();
        let is_block_device = file_type.is_block_device();
        let kind = match file_type {
            kind if kind.is_file() || kind.is_block_device() => None,
            kind if kind.is_dir() => Some("directory"),
            kind if kind.is_fifo() => Some("FIFO"),
            kind if kind.is_char_device() => Some("character device"),
            _ => Some("special file"),
        };
        if let Some(kind) = kind {
            return Err(BlockError::NotADisk { path: path_buf(), kind });
        }
        clear_nonblocking(&file).map_err(inspect("change the flags"))?;
        lock(&file, access).map_err(|error| match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => BlockError::InUse { path: path_buf() },
            _ => inspect("take the lock")(error),
        })?;

        let size = file.seek(SeekFrom::End(0)).map_err(inspect("find the size"))?;
        if size == 0 {
            return Err(BlockError::Empty { path: path_buf() });
        }
        if size % SECTOR_SIZE != 0 {
            return Err(BlockError::OddSize { path: path_buf(), size });
        }
        Ok(Self { file, sectors: size / SECTOR_SIZE, is_block_device })
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Size in sectors.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Gives the storage of `len` bytes at `offset` back to the host. A host that cannot keeps it: discard is a hint.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let result = if self.is_block_device {
            let range = [offset, len];
            // SAFETY: BLKDISCARD reads two 64-bit numbers, which `range` holds for the call.
            to_result(unsafe { libc::ioctl(self.file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
        } else {
            self.fallocate(libc::FALLOC_FL_PUNCH_HOLE, offset, len)
        };
        match result {
            Err(error) if unsupported(&error) => Ok(()),
            result => result,
        }
    }

    /// Makes `len` bytes at `offset` read as zeroes, and gives their storage back when `unmap` allows it.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64, unmap: Unmap) -> io::Result<()> {
        let mode = match unmap {
            Unmap::Allowed => libc::FALLOC_FL_PUNCH_HOLE,
            Unmap::Forbidden => libc::FALLOC_FL_ZERO_RANGE,
        };
        match self.fallocate(mode, offset, len) {
            Err(error) if unsupported(&error) => self.write_zero_blocks(offset, len),
            result => result,
        }
    }

    fn write_zero_blocks(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(ZERO_BLOCK.len() as u64);
            self.file.write_all_at(ZERO_BLOCK.get(..part as usize).unwrap_or_default(), offset + done)?;
            done += part;
        }
        Ok(())
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
        let (offset, len) = (offset.try_into().map_err(too_large)?, len.try_into().map_err(too_large)?);
        loop {
            // SAFETY: no memory is passed.
            let result = to_result(unsafe {
                libc::fallocate(self.file.as_raw_fd(), mode | libc::FALLOC_FL_KEEP_SIZE, offset, len)
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Whether zeroing may give storage back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmap {
    /// It may.
    Allowed,
    /// It may not.
    Forbidden,
}

/// Whether the host cannot do this at all, or not to such a range: a block device with sectors of 4 KiB answers EINVAL
/// to one that begins or ends within a sector, which the guest, whose sectors are smaller, may well ask for.
fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::EINVAL))
}

fn to_result(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// With O_NONBLOCK, io_uring would answer EAGAIN where the page cache has to wait for the disk.
fn clear_nonblocking(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed. Access mode and creation flags are ignored by F_SETFL.
    to_result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) })
}

/// Takes a lock of the open file description, which no other close of the same file gives up.
fn lock(file: &File, access: Access) -> io::Result<()> {
    let kind = match access {
        Access::ReadOnly => libc::F_RDLCK,
        Access::ReadWrite => libc::F_WRLCK,
    };
    let whole_file = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the kernel reads one `flock`, which lives for the call.
    let result =
        to_result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole_file) });
    match result {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)) =>
        {
            warn!(
                "the file system of a disk image has no locks; make sure that nobody else writes it: {error}"
            );
            Ok(())
        }
        result => result,
    }
}
