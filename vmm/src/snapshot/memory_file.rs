//! Writes guest memory to a file that is as long as it, where pages of zeroes take no room.
#![expect(unsafe_code, reason = "pwrite(2) from guest memory, and reading it a page at a time")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::digest;
use super::error::SnapshotError;
use super::pages::{PAGE_SIZE, Pages};
use crate::memory::data_extents;

/// Most bytes that one call writes: Linux writes no more than 2 GiB.
const MAX_WRITE: usize = 1 << 30;
/// 64-bit words of a page that are looked at before asking whether one of them was not zero.
const WORDS_AT_ONCE: usize = 8;

/// Writes those of `pages` that are not all zeroes to `file`, which is empty, each at its offset, and makes the file as long
/// as `memory`. The bytes that were written are returned. `memory` must not change meanwhile.
///
/// # Errors
/// What the host said, as for a full disk.
pub fn write(file: &File, memory: &GuestMemory, pages: &Pages) -> io::Result<u64> {
    file.set_len(memory.iter().map(vm_memory::GuestMemoryRegion::len).sum())?;
    let mut written = 0;
    for (address, range) in mapped(memory, pages) {
        // SAFETY: the range is mapped at this address, for as long as there is `memory`.
        written += unsafe { write_range(file, address, &range)? };
    }
    Ok(written)
}

/// The ranges of `pages`, cut where `memory` has a gap, with the address where each is mapped.
pub(super) fn mapped<'a>(
    memory: &'a GuestMemory,
    pages: &'a Pages,
) -> impl Iterator<Item = (*mut u8, Range<u64>)> + 'a {
    let regions = memory.iter().scan(0, |next, region| {
        let first = *next;
        *next += region.len();
        Some((region.as_ptr(), first..*next))
    });
    regions.flat_map(|(start, region)| {
        let before = pages.ranges().partition_point(|range| range.end <= region.start);
        let end = region.end;
        let within = pages.ranges().iter().skip(before).take_while(move |range| range.start < end);
        within.map(move |range| {
            let cut = range.start.max(region.start)..range.end.min(region.end);
            (start.wrapping_add((cut.start - region.start) as usize), cut)
        })
    })
}

/// Writes the runs of pages that are not all zeroes of `range`, offsets in the file, which begins at `address`.
///
/// # Safety
/// From `address` on there is memory that can be read, as long as `range`.
unsafe fn write_range(file: &File, address: *const u8, range: &Range<u64>) -> io::Result<u64> {
    let page_at = |offset: u64| address.wrapping_add((offset - range.start) as usize);
    // SAFETY: what is asked for begins within the range, and ends at the end of a page.
    let is_zero = |offset: u64| unsafe { is_zero(page_at(offset)) };
    let mut written = 0;
    let mut offset = range.start;
    while offset < range.end {
        if is_zero(offset) {
            offset += PAGE_SIZE;
            continue;
        }
        let start = offset;
        offset += PAGE_SIZE;
        while offset < range.end && !is_zero(offset) {
            offset += PAGE_SIZE;
        }
        // SAFETY: both ends of the run are within the range.
        unsafe { write_run(file, page_at(start), (offset - start) as usize, start)? };
        written += offset - start;
    }
    Ok(written)
}

/// Whether the page at `page` has nothing but zeroes.
///
/// # Safety
/// `page` is aligned to 8 bytes, and [`PAGE_SIZE`] bytes from it on can be read.
#[expect(clippy::cast_ptr_alignment, reason = "the caller says that it is aligned")]
unsafe fn is_zero(page: *const u8) -> bool {
    let words = page.cast::<u64>();
    for start in (0..PAGE_SIZE as usize / size_of::<u64>()).step_by(WORDS_AT_ONCE) {
        let mut seen = 0;
        for index in start..start + WORDS_AT_ONCE {
            // SAFETY: the word is in the page. It is volatile as a device of the host's kernel may still write to it.
            seen |= unsafe { words.add(index).read_volatile() };
        }
        if seen != 0 {
            return false;
        }
    }
    true
}

/// Writes `len` bytes from `address` on to `offset` of the file.
///
/// # Safety
/// `len` bytes from `address` on can be read.
unsafe fn write_run(file: &File, mut address: *const u8, mut len: usize, mut offset: u64) -> io::Result<()> {
    while len > 0 {
        let place = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: the kernel reads at most `len` bytes, which the caller says can be read.
        let count = unsafe { libc::pwrite(file.as_raw_fd(), address.cast(), len.min(MAX_WRITE), place) };
        match usize::try_from(count) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                address = address.wrapping_add(count);
                len -= count;
                offset += count as u64;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Which side of a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// The file that is read.
    Read(io::Error),
    /// The file that is written.
    Write(io::Error),
}

impl CopyError {
    /// The same with its file: `from` is what was read, and `write` names what was written.
    pub fn naming(self, from: &Path, write: impl FnOnce(io::Error) -> SnapshotError) -> SnapshotError {
        match self {
            Self::Read(error) => SnapshotError::io("read", from, error),
            Self::Write(error) => write(error),
        }
    }
}

/// Copies those of `pages` that are not all zeroes from the memory file `from` to `to`, which has none of them yet.
///
/// # Errors
/// What the host said of either file.
pub fn copy(to: &File, from: &File, pages: &Pages) -> Result<(), CopyError> {
    let len = from.metadata().map_err(CopyError::Read)?.len();
    let data = Pages::of(data_extents(from, len));
    for range in pages.intersection(&data).ranges() {
        for part in digest::parts(range) {
            let bytes = digest::read(from, &part).map_err(CopyError::Read)?;
            let mut offset = part.start;
            // Neighbours that are both zeroes, or both not, are one run.
            let pages: Vec<_> =
                bytes.chunks(PAGE_SIZE as usize).map(|page| (page, digest::is_zero(page))).collect();
            for run in pages.chunk_by(|(_, one), (_, other)| one == other) {
                let start = (offset - part.start) as usize;
                let run_len: usize = run.iter().map(|(page, _)| page.len()).sum();
                let is_zero = run.iter().all(|(_, is_zero)| *is_zero);
                if let Some(run) = bytes.get(start..start + run_len).filter(|_| !is_zero) {
                    to.write_all_at(run, offset).map_err(CopyError::Write)?;
                }
                offset += run_len as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{self, HugePages};
    use crate::snapshot::touched;
    use std::os::unix::fs::MetadataExt as _;
    use vm_memory::{Bytes as _, GuestAddress};

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_above_the_gap_follows_that_below() {
        let memory = memory::create(3 * 1024 + 8, HugePages::None, false).unwrap();
        // The last page below the gap, and the first above it: one range in the file.
        for (address, byte) in [(3 * GIB - 1, 1_u8), (4 * GIB, 2), (4 * GIB + 0x5000, 3)] {
            memory.write_obj(byte, GuestAddress(address)).unwrap();
        }
        for pages in
            [touched(&memory).unwrap(), Pages::of(vec![3 * GIB - PAGE_SIZE..3 * GIB + (1 << 20), 0..0])]
        {
            let file = tempfile::tempfile().unwrap();
            assert_eq!(write(&file, &memory, &pages).unwrap(), 3 * PAGE_SIZE);
            let metadata = file.metadata().unwrap();
            assert_eq!(metadata.len(), 3 * GIB + (8 << 20));
            assert!(metadata.blocks() * 512 < 1 << 20);
            for (offset, byte) in
                [(3 * GIB - 1, 1), (3 * GIB, 2), (3 * GIB + 0x5000, 3), (3 * GIB + 0x4000, 0)]
            {
                let mut found = [9];
                file.read_exact_at(&mut found, offset).unwrap();
                assert_eq!(found, [byte], "{offset:#x}");
            }
        }
    }

    #[test]
    fn a_page_with_one_byte_anywhere_is_written_and_one_of_zeroes_is_not() {
        let memory = memory::create(4, HugePages::None, false).unwrap();
        for at in (0..PAGE_SIZE).step_by(61).chain([0, PAGE_SIZE - 1]) {
            memory.write_obj(0x80_u8, GuestAddress(at)).unwrap();
            let file = tempfile::tempfile().unwrap();
            assert_eq!(write(&file, &memory, &Pages::all(4 << 20)).unwrap(), PAGE_SIZE, "{at}");
            memory.write_obj(0_u8, GuestAddress(at)).unwrap();
            let file = tempfile::tempfile().unwrap();
            assert_eq!(write(&file, &memory, &Pages::all(4 << 20)).unwrap(), 0, "{at}");
        }
    }
}
