//! Writes guest memory to a file that is as long as it, where pages of zeroes take no room.
#![expect(unsafe_code, reason = "pwrite(2) from guest memory, and reading it a page at a time")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::digest;
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
    let mut first = 0;
    for region in memory.iter() {
        let last = first + region.len();
        let start = pages.ranges().partition_point(|range| range.end <= first);
        for range in pages.ranges().iter().skip(start).take_while(|range| range.start < last) {
            let within = range.start.max(first)..range.end.min(last);
            let address = region.as_ptr().wrapping_add((within.start - first) as usize);
            // SAFETY: the range is cut to the region, whose mapping `memory` keeps for the call.
            written += unsafe { write_range(file, address, &within)? };
        }
        first = last;
    }
    Ok(written)
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
pub(super) enum CopyError {
    /// The file that is read.
    Read(io::Error),
    /// The file that is written.
    Write(io::Error),
}

/// Copies those of `pages` that are not all zeroes from the memory file `from` to `to`, which has none of them yet.
pub(super) fn copy(to: &File, from: &File, pages: &Pages) -> Result<(), CopyError> {
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
