//! The marker of a memory file: an extended attribute that names the snapshot whose memory it is.
//!
//! A memory file has nothing but guest memory, so that other programs can use it. Without a marker, the pages of a diff or
//! the memory of another VM look like any other. The marker also has the time of the last change: a tool that writes to
//! the file, such as Firecracker's `snapshot-editor`, thereby takes the marker back.
//!
//! The attribute `user.rvmm.memory` is text: `1 full|diff ID MTIME`, the id in hexadecimal and the time in nanoseconds
//! since 1970, UTC. Copying with `cp -a` or `rsync -X` keeps it. A file system without extended attributes has none.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use super::digest::hex;
use super::state::{Id, StateV2};

/// Name of the attribute.
const NAME: &str = "user.rvmm.memory";
/// Version of its text.
const VERSION: &str = "1";
/// Bytes of the longest text that is read.
const MAX_LEN: usize = 128;

/// Marks the memory file of the snapshot with `state`, whose content is final, and notes that in `state`.
///
/// # Errors
/// What the host said, but for a file system without attributes or without room for one.
pub(super) fn mark(memory: &File, state: &mut StateV2) -> io::Result<()> {
    state.memory.is_marked = write(memory, &state.id, Extent::of(state))?;
    Ok(())
}

/// Which pages a memory file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of them.
    Full,
    /// Those of a diff.
    Diff,
}

impl Extent {
    /// What the memory file of the snapshot with `state` has.
    pub(super) fn of(state: &StateV2) -> Self {
        if state.memory.pages.is_some() { Self::Diff } else { Self::Full }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Diff => "diff",
        }
    }
}

/// What the marker of a memory file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// There is none: it was lost, or the file system has no attributes.
    Absent,
    /// The file was marked, and changed since.
    Changed {
        /// The pages that it had before.
        extent: Extent,
    },
    /// The file is as it was written for this snapshot.
    Of {
        /// The snapshot, in hexadecimal.
        id: String,
        /// The pages.
        extent: Extent,
    },
}

/// Marks `file`, whose content is final. Returns whether it could: some file systems have no attributes.
///
/// # Errors
/// What the host said, but for a file system without attributes or without room for one.
fn write(file: &File, id: &Id, extent: Extent) -> io::Result<bool> {
    let text = format!("{VERSION} {} {} {}", extent.name(), hex(id), modified(file)?);
    match fsetxattr(file, NAME, text.as_bytes(), XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOSPC | Errno::DQUOT | Errno::PERM | Errno::ACCESS) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The marker of `file`. One that cannot be read, or has another form, counts as absent.
pub(super) fn read(file: &File) -> Marker {
    let mut bytes = [0; MAX_LEN];
    let Ok(len) = fgetxattr(file, NAME, &mut bytes[..]) else { return Marker::Absent };
    let text = bytes.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    parse(text, modified(file).ok()).unwrap_or(Marker::Absent)
}

fn parse(text: &str, modified: Option<i128>) -> Option<Marker> {
    let mut words = text.split(' ');
    let (version, extent, id, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let extent = [Extent::Full, Extent::Diff].into_iter().find(|known| known.name() == extent)?;
    let time: i128 = time.parse().ok().filter(|_| version == VERSION && words.next().is_none())?;
    Some(if Some(time) == modified {
        Marker::Of { id: id.to_owned(), extent }
    } else {
        Marker::Changed { extent }
    })
}

/// When the content of `file` last changed, in nanoseconds since 1970, UTC.
fn modified(file: &File) -> io::Result<i128> {
    let metadata = file.metadata()?;
    Ok(i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const ID: Id = [0xab; 16];

    #[test]
    fn a_marked_file_names_its_snapshot_until_it_is_changed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(read(file.as_file()), Marker::Absent);
        file.as_file().write_all(b"x").unwrap();
        assert!(write(file.as_file(), &ID, Extent::Diff).unwrap(), "TMPDIR has no extended attributes");
        let marker = Marker::Of { id: hex(&ID), extent: Extent::Diff };
        assert_eq!(read(file.as_file()), marker);
        let renamed = file.path().with_extension("renamed");
        std::fs::rename(file.path(), &renamed).unwrap();
        assert_eq!(read(&File::open(&renamed).unwrap()), marker);
        // Time stamps of files can have steps of some milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        file.as_file().write_all(b"y").unwrap();
        assert_eq!(read(file.as_file()), Marker::Changed { extent: Extent::Diff });
        std::fs::remove_file(renamed).unwrap();
    }

    #[test]
    fn text_of_another_form_is_no_marker() {
        let at = Some(5);
        assert_eq!(parse("1 full ab 5", at), Some(Marker::Of { id: "ab".to_owned(), extent: Extent::Full }));
        for text in ["", "1", "1 full ab", "2 full ab 5", "1 half ab 5", "1 full ab 5 x", "1 full ab x"] {
            assert_eq!(parse(text, at), None, "{text:?}");
        }
        for modified in [Some(6), None] {
            assert_eq!(parse("1 full ab 5", modified), Some(Marker::Changed { extent: Extent::Full }));
        }
    }
}
