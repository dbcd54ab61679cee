//! Where a sparse file has data.
#![expect(unsafe_code, reason = "SEEK_DATA and SEEK_HOLE have no safe wrapper")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

/// Extents that are told apart; what is behind them is taken for data.
const MAX_EXTENTS: usize = 1 << 16;

/// The parts of the first `len` bytes of `file` that are not holes, in ascending order. On a file system that does not
/// tell: all of it. The file's position moves.
pub fn data_extents(file: &File, len: u64) -> Vec<Range<u64>> {
    let mut extents = Vec::new();
    let mut offset = 0;
    while offset < len {
        let start = match seek(file, offset, libc::SEEK_DATA) {
            Ok(start) if start >= offset => start,
            // No data behind this.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => break,
            _ => offset,
        };
        let end = match seek(file, start, libc::SEEK_HOLE) {
            Ok(end) if end > start => end,
            _ => len,
        };
        if start >= len {
            break;
        }
        let end = if extents.len() < MAX_EXTENTS { end } else { len };
        extents.push(start..end.min(len));
        offset = end;
    }
    extents
}

fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `file` is; lseek touches no memory.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_written_is_found_and_holes_are_not() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 * MIB).unwrap();
        assert_eq!(data_extents(&file, 16 * MIB), []);
        for start in [MIB, 9 * MIB] {
            file.write_all_at(&[1; 4096], start).unwrap();
        }
        let extents = data_extents(&file, 16 * MIB);
        for offset in (0..16 * MIB).step_by(4096) {
            let found = extents.iter().any(|extent| extent.contains(&offset));
            // A file system may give a little more.
            let near = [MIB, 9 * MIB].iter().any(|start| offset.abs_diff(*start) < MIB / 4);
            assert!(found <= near && (found || ![MIB, 9 * MIB].contains(&offset)), "{offset:#x} {extents:?}");
        }
        assert_eq!(data_extents(&file, MIB), [], "only the first bytes were asked for");
    }
}
