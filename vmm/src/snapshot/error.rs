//! Why there is no snapshot, or none that can be used.

use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with a snapshot, a chain of them, or the place for a new one.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The host refused something.
    #[error("cannot {what} {}{mend}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What to do about it, behind a semicolon, or nothing.
        mend: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A folder of something else, or none.
    #[error("{} is no snapshot: there is no file \"state\" in it", path.display())]
    NoSnapshot {
        /// The folder.
        path: PathBuf,
    },
    /// A new snapshot would mix with what is there.
    #[error("{} is not empty; name a folder that is, or one that is not there", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The path of a new snapshot leads to something that it cannot replace.
    #[error("{} {why}", path.display())]
    Place {
        /// The path.
        path: PathBuf,
        /// What is there, and what to do.
        why: &'static str,
    },
    /// Another snapshot is on its way to the same place.
    #[error("another snapshot is being written to {}; wait for it, or name another place", path.display())]
    UnderWay {
        /// The place.
        path: PathBuf,
    },
    /// A file of a snapshot cannot be what it should be.
    #[error("{}: {message}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A diff without its base.
    #[error(
        "{} is a diff on top of {}, which is not there; put it back, or beside the diff",
        path.display(), base.display()
    )]
    NoBase {
        /// The diff.
        path: PathBuf,
        /// Where its base was.
        base: PathBuf,
    },
    /// A diff whose base is another snapshot by now.
    #[error(
        "{} is a diff on top of {}, which is another snapshot by now; put the right one back",
        path.display(), base.display()
    )]
    OtherBase {
        /// The diff.
        path: PathBuf,
        /// Where its base was.
        base: PathBuf,
    },
    /// Two snapshots of a chain have one memory file.
    #[error(
        "{} is the memory of both {} and {}, so one of them was overwritten; give each a memory file of its own",
        memory.display(), path.display(), other.display()
    )]
    SharedMemory {
        /// The memory file.
        memory: PathBuf,
        /// The upper snapshot.
        path: PathBuf,
        /// The lower one.
        other: PathBuf,
    },
    /// More pages in a chain than are read.
    #[error(
        "{} and the diffs below it list more than {limit} ranges of pages; make one snapshot of some of them with `rvmm snapshot merge`",
        path.display()
    )]
    TooManyRanges {
        /// The uppermost diff.
        path: PathBuf,
        /// How many there may be.
        limit: usize,
    },
    /// A disk's data cannot be shared with a snapshot.
    #[error(
        "drive \"{drive_id}\": a copy of it in {} cannot share its data (reflink): that takes one XFS or btrfs for both. \
         Copy it while the guest is paused (--disks copy), leave disks out (--disks none), or end the VM with it (--stop)",
        folder.display()
    )]
    NoReflink {
        /// Which drive.
        drive_id: String,
        /// The folder of the snapshot.
        folder: PathBuf,
    },
    /// Diffs on top of one another.
    #[error("{} is on top of itself; a snapshot that was written by rvmm never is", path.display())]
    Loop {
        /// The folder that was met for the second time.
        path: PathBuf,
    },
    /// More diffs than are followed.
    #[error(
        "{} has more than {limit} diffs below it; make one snapshot of them with `rvmm snapshot merge`",
        path.display()
    )]
    TooDeep {
        /// The uppermost diff.
        path: PathBuf,
        /// How many there may be.
        limit: usize,
    },
}

impl SnapshotError {
    /// The host refused to do `what` with `path`.
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        let mend = match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => "; make room there, or name a folder on another disk",
            Some(libc::EROFS) => "; name a folder that can be written to",
            Some(libc::EFBIG) => "; raise the limit on the size of files (ulimit -f)",
            _ => "",
        };
        Self::Io { what, path: path.to_owned(), mend, source }
    }

    /// The file `path` is not what it should be.
    pub(super) fn broken(path: &Path, message: impl Into<String>) -> Self {
        Self::Broken { path: path.to_owned(), message: message.into() }
    }
}
