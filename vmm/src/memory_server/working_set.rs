//! The pages that a guest needs first, in the order that it asked for them: the file `working-set` of a snapshot.
//!
//! It is text, a line for each range: its offset in guest memory and its length, in bytes, in hexadecimal. A range that
//! was added or left out changes how fast a guest is, and nothing else.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::image::PAGE;
use crate::text_file;

/// Name of the file, in the folder of a snapshot.
pub const FILE: &str = "working-set";
/// Ranges that are recorded; their lines fit what is read of a file ([`text_file::MAX_SIZE`]).
pub(super) const MAX_RANGES: usize = 30_000;

/// The ranges that the file `path` has, of `len` bytes of memory; none if there is no such file.
///
/// # Errors
/// What the host said, or the line that is none.
pub(super) fn read(path: &Path, len: u64) -> io::Result<Vec<Range<u64>>> {
    let text = match text_file::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(invalid(&error.to_string())),
        Ok(text) => text,
    };
    let line = |(line, number): (&str, usize)| {
        range(line, len).ok_or_else(|| {
            invalid(&format!("line {number} is no range of whole pages of the guest's memory"))
        })
    };
    text.lines().zip(1..).map(line).collect()
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{message}; remove the file, or record it again"))
}

fn range(line: &str, len: u64) -> Option<Range<u64>> {
    let (start, size) = line.split_once(' ')?;
    let number = |text| u64::from_str_radix(text, 16).ok().filter(|number| number.is_multiple_of(PAGE));
    let (start, size) = (number(start)?, number(size)?);
    let end = start.checked_add(size).filter(|end| *end <= len)?;
    Some(start..end)
}

/// Writes `ranges` to the file `path`, at once or not at all.
///
/// # Errors
/// What the host said.
pub(super) fn write(path: &Path, ranges: &[Range<u64>]) -> io::Result<()> {
    let line = |range: &Range<u64>| format!("{:x} {:x}\n", range.start, range.end - range.start);
    let text: Vec<String> = ranges.iter().map(line).collect();
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    // Whatever is there was left by a process that is gone, or put there to be followed.
    let _ = fs::remove_file(&beside);
    let written = File::options().write(true).create_new(true).mode(0o600).open(&beside);
    let written = written.and_then(|mut file| file.write_all(text.concat().as_bytes()));
    let written = written.and_then(|()| fs::rename(&beside, path));
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(read(&path, 0x10_0000).unwrap(), []);
        let ranges = [0x8000..0x1_0000, 0..0x1000, 0xf_f000..0x10_0000];
        write(&path, &ranges).unwrap();
        assert_eq!(read(&path, 0x10_0000).unwrap(), ranges);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_range_of_the_memory_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for bad in ["x", "0", "0 1", "1 1000", "f0000 11000", "fffffffffffff000 1000", "0 -1000", " 0 1000"] {
            fs::write(&path, format!("0 1000\n{bad}\n")).unwrap();
            let error = read(&path, 0x10_0000).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{bad}: {error}");
        }
        fs::write(&path, [0xff; 16]).unwrap();
        read(&path, 0x10_0000).unwrap_err();
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read(&path, 0x10_0000).unwrap_err().to_string().contains("longer than"));
    }
}
