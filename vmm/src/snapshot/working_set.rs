//! The pages that a guest needs first: the file `working-set` of a snapshot.
//!
//! It is text, a line for each range: its offset in guest memory and its length, in bytes, in hexadecimal, and `w` behind
//! them if the guest wrote to each of its pages. A range that was added or left out changes how fast a guest is, and nothing
//! else.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::error::SnapshotError;
use super::pagemap::{self, FILE_BACKED, PERHAPS_ZERO, ZERO};
use super::pages::{PAGE_SIZE, Pages};
use super::regular;
use crate::memory::Used;

/// Name of the file, in the folder of a snapshot.
pub const FILE: &str = "working-set";
/// Ranges that are recorded; their lines fit [`MAX_SIZE`].
pub(crate) const MAX_RANGES: usize = 30_000;
/// Bytes of the longest file that is read.
const MAX_SIZE: u64 = 1 << 20;

/// Ranges of pages that were only read. The host maps those of a file sixteen at a time, so they are not exact anyway, and
/// each is a system call of a later restore.
const MAX_READ: usize = 64;

/// The pages of `memory` that were used since it was made, by the guest or by rvmm, in ascending order, but for those that were
/// `copied` to it then, which a restore does anyway. What was written is exact as
/// long as it is not in more than some thirty thousand places.
///
/// # Errors
/// What the host said.
pub fn of(memory: &GuestMemory, copied: &Pages) -> io::Result<Vec<Used>> {
    let (mut read, mut written) = (Pages::default(), Pages::default());
    let mut first = 0;
    for region in memory.iter() {
        let start = region.as_ptr().addr() as u64;
        pagemap::each(start..start + region.len(), &mut |range, page| {
            let range = first + (range.start - start)..first + (range.end - start);
            match page & (FILE_BACKED | ZERO | PERHAPS_ZERO) {
                0 => written.push(range),
                FILE_BACKED => read.push(range),
                // Zeroes that were read need not be there sooner.
                _ => {}
            }
        })?;
        first += region.len();
    }
    let written = written.without(copied).coalesced(MAX_RANGES - MAX_READ);
    let read = read.coalesced(MAX_READ).without(&written).coalesced(MAX_READ);
    let used = |written| move |range| Used { range, written };
    let mut all: Vec<_> = written.into_ranges().into_iter().map(used(true)).collect();
    all.extend(read.into_ranges().into_iter().map(used(false)));
    all.sort_unstable_by_key(|used| used.range.start);
    Ok(all)
}

/// What is recorded of the snapshot in the folder `dir`, which has `len` bytes of memory; nothing if there is no such file, or it is
/// another user's alone.
///
/// # Errors
/// [`SnapshotError`]: what the host said, or the line that is none.
pub fn read(dir: &Path, len: u64) -> Result<Vec<Used>, SnapshotError> {
    let path = &dir.join(FILE);
    // Opening a device can have effects.
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(found) if !found.is_file() => {
            return Err(SnapshotError::broken(path, "is no regular file; remove it"));
        }
        Ok(found) if found.len() > MAX_SIZE => {
            let message = format!("is longer than {MAX_SIZE} bytes; remove the file, or record it again");
            return Err(SnapshotError::broken(path, message));
        }
        _ => {}
    }
    let bytes = match regular::read_itself(path, MAX_SIZE) {
        Err(SnapshotError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            log::warn!("cannot read {}: {source}; the guest begins without it", path.display());
            return Ok(Vec::new());
        }
        read => read?,
    };
    parse(&bytes, len)
        .map_err(|wrong| SnapshotError::broken(path, format!("{wrong}; remove the file, or record it again")))
}

/// What the `bytes` of such a file say, of `len` bytes of memory.
///
/// # Errors
/// What is wrong with them.
pub fn parse(bytes: &[u8], len: u64) -> Result<Vec<Used>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "is no text".to_owned())?;
    let line = |(line, number): (&str, usize)| {
        parse_line(line, len)
            .ok_or_else(|| format!("line {number} is no range of whole pages of the guest's memory"))
    };
    text.lines().zip(1..).map(line).collect()
}

fn parse_line(line: &str, len: u64) -> Option<Used> {
    let (start, rest) = line.split_once(' ')?;
    let (size, written) = rest.strip_suffix(" w").map_or((rest, false), |size| (size, true));
    let number = |text| u64::from_str_radix(text, 16).ok().filter(|number| number.is_multiple_of(PAGE_SIZE));
    let (start, size) = (number(start)?, number(size)?);
    let end = start.checked_add(size).filter(|end| *end <= len)?;
    Some(Used { range: start..end, written })
}

/// Whether a record can be written to the folder `dir`.
///
/// # Errors
/// [`SnapshotError`]: what the host said.
pub fn is_writable(dir: &Path) -> Result<(), SnapshotError> {
    let beside = beside(dir);
    let _ = fs::remove_file(&beside);
    let made = File::options().write(true).create_new(true).mode(0o600).open(&beside);
    made.and_then(|_| fs::remove_file(&beside))
        .map_err(|error| SnapshotError::io("write", &dir.join(FILE), error))
}

/// The folder `dir`, to find it again wherever it is moved.
///
/// # Errors
/// [`SnapshotError`]: what the host said.
pub fn open_folder(dir: &Path) -> Result<File, SnapshotError> {
    let opened = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(dir);
    opened.map_err(|error| SnapshotError::io("open", dir, error))
}

/// Where a record is written before it is renamed.
fn beside(dir: &Path) -> PathBuf {
    dir.join(format!("{FILE}.{}.new", std::process::id()))
}

/// Writes `used` to the folder `dir` of a snapshot, at once or not at all, for whoever may read its memory.
///
/// # Errors
/// What the host said.
pub fn write(dir: &Path, used: &[Used]) -> io::Result<()> {
    let line = |Used { range: Range { start, end }, written }: &Used| {
        format!("{start:x} {:x}{}\n", end - start, if *written { " w" } else { "" })
    };
    let text: Vec<String> = used.iter().map(line).collect();
    let mode = fs::symlink_metadata(dir.join("memory")).map_or(0, |memory| memory.permissions().mode());
    let beside = beside(dir);
    // Whatever is there was left by a process that is gone, or put there to be followed.
    let _ = fs::remove_file(&beside);
    let written = File::options().write(true).create_new(true).mode(0o600).open(&beside);
    let written = written.and_then(|mut file| {
        file.set_permissions(fs::Permissions::from_mode(0o600 | mode & 0o666))?;
        file.write_all(text.concat().as_bytes())
    });
    let written = written.and_then(|()| fs::rename(&beside, dir.join(FILE)));
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 0x10_0000).unwrap(), []);
        let ranges = [(0x8000..0x1_0000, false), (0..0x1000, true), (0xf_f000..0x10_0000, true)];
        let used = ranges.map(|(range, written)| Used { range, written });
        write(folder.path(), &used).unwrap();
        assert_eq!(read(folder.path(), 0x10_0000).unwrap(), used);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_longest_list_that_is_recorded_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let end = 1 << 46;
        let last = Used { range: end - 0x1_0000_0000..end, written: true };
        write(folder.path(), &vec![last; MAX_RANGES]).unwrap();
        assert_eq!(read(folder.path(), end).unwrap().len(), MAX_RANGES);
    }

    #[test]
    fn what_is_no_range_of_the_memory_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let numbers =
            ["x", "0", "0 1", "1 1000", "f0000 11000", "fffffffffffff000 1000", "0 -1000", " 0 1000"];
        for bad in numbers.into_iter().chain(["0 1000 r", "0 1000 w w", "0 1000  w", "0 w", ""]) {
            fs::write(&path, format!("0 1000\n{bad}\n")).unwrap();
            let error = read(folder.path(), 0x10_0000).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains("record it again"), "{bad}: {error}");
        }
        fs::write(&path, [0xff; 16]).unwrap();
        assert!(read(folder.path(), 0x10_0000).unwrap_err().to_string().contains("is no text"));
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read(folder.path(), 0x10_0000).unwrap_err().to_string().contains("longer than"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read(folder.path(), 0x10_0000).unwrap_err().to_string().contains("no regular file"));
    }
}
