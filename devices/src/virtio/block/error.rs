use std::io;
use std::path::PathBuf;

use super::config::BlockConfigError;

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
        "disk image {} has {size} bytes, not a multiple of {multiple}; pad it with `truncate -s %{multiple}`",
        path.display()
    )]
    OddSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What it must be a multiple of.
        multiple: u64,
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
    /// The host has no timer to give.
    #[error("cannot create a timer for the drive's rate limiter")]
    RateLimiter(#[source] io::Error),
    /// io_uring was asked for and the host does not have it.
    #[error(
        "drive {id}: io_engine Async needs io_uring, which this host refuses; use Sync (of a snapshot: rvmm restore --disk id={id},engine=sync)"
    )]
    NoIoUring {
        /// The drive's id.
        id: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Direct I/O was asked for and the file system does not have it.
    #[error("disk image {}: its file system has no direct I/O; leave out direct, or move the image", path.display())]
    NoDirect {
        /// The file.
        path: PathBuf,
    },
}
