//! Gives pages of guest memory back to the host: the one place of the balloon that is unsafe.
//!
//! What a page turns into must be zeroes, or it must stay as it is. A guest may rely on that for pages that it reports: one
//! that clears what it frees does not clear it again. So it depends on what is behind the memory:
//!
//! - Anonymous memory is dropped (MADV_DONTNEED), and reads as zeroes.
//! - A file that is mapped shared gets a hole (MADV_REMOVE).
//! - A file that is mapped privately, which a restored guest has, would show what is in the file when the guest's own
//!   pages are dropped: the guest's memory as it was long ago. Anonymous memory takes its place, in whole blocks of
//!   [`Replaced`]; what is less than a block stays with the guest.
//!
//! A dirty bitmap is told of all of it. KVM does not see that pages go, so a diff would leave them out, and a guest that
//! is restored from it would find in them what the base has: not zeroes, and older than anything that it wrote there.
#![expect(
    unsafe_code,
    reason = "madvise(2) and mmap(2) over a mapping that vm-memory owns have no safe wrapper"
)]

use std::io;
use std::ops::Range;

use vm_memory::bitmap::Bitmap;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

use super::PAGE_SIZE;
use super::replaced::{Part, Replaced};
use crate::GuestMemory;

type Region = GuestRegionMmap<Option<vm_memory::bitmap::AtomicBitmap>>;

/// What became of a range.
#[derive(Debug, Default)]
pub(super) struct Discarded {
    /// Bytes that the host has again.
    pub bytes: u64,
    /// Bytes that are not in guest memory.
    pub outside: u64,
    /// What the host said when it did not take a part.
    pub refused: Option<io::Error>,
}

impl Discarded {
    fn add(&mut self, len: u64, result: io::Result<()>) {
        match result {
            Ok(()) => self.bytes += len,
            Err(error) => self.refused = Some(error),
        }
    }
}

/// Drops the contents of the guest-physical addresses `range`, as far as whole pages of guest memory lie in it: they
/// read as zeroes from now on. `replaced` is the memory's, and the same at each call.
pub(super) fn discard(memory: &GuestMemory, range: &Range<u64>, replaced: &mut Replaced) -> Discarded {
    let mut result = Discarded::default();
    let mut inside = 0;
    for region in memory.iter() {
        let first = region.start_addr().raw_value();
        let start = range.start.max(first);
        let end = range.end.min(first.saturating_add(region.len()));
        if start >= end {
            continue;
        }
        inside += end - start;
        let pages = (start - first).next_multiple_of(PAGE_SIZE)..(end - first) / PAGE_SIZE * PAGE_SIZE;
        if pages.is_empty() {
            continue;
        }
        let len = pages.end - pages.start;
        if region.flags() & libc::MAP_SHARED != 0 {
            result.add(len, drop_pages(region, &pages, libc::MADV_REMOVE));
        } else if region.file_offset().is_none() {
            result.add(len, drop_pages(region, &pages, libc::MADV_DONTNEED));
        } else {
            discard_private(region, &pages, replaced, &mut result);
        }
    }
    result.outside = (range.end - range.start).saturating_sub(inside);
    result
}

/// Drops `pages` of a region that is a private mapping of a file, as far as anonymous memory is or can be put there.
fn discard_private(region: &Region, pages: &Range<u64>, replaced: &mut Replaced, result: &mut Discarded) {
    let first = region.start_addr().raw_value();
    for (part, addresses) in replaced.parts(&(first + pages.start..first + pages.end)) {
        let (offsets, len) =
            (addresses.start - first..addresses.end - first, addresses.end - addresses.start);
        let done = match part {
            Part::Replaced => drop_pages(region, &offsets, libc::MADV_DONTNEED),
            Part::Whole if replaced.spend() => {
                let done = replace(region, &offsets);
                if done.is_ok() {
                    replaced.insert(&addresses);
                }
                done
            }
            Part::Whole | Part::Fraction => Err(io::ErrorKind::Unsupported.into()),
        };
        result.add(len, done);
    }
}

fn drop_pages(region: &Region, pages: &Range<u64>, advice: libc::c_int) -> io::Result<()> {
    let len = (pages.end - pages.start) as usize;
    let address = address_of(region, pages);
    // SAFETY: the `len` bytes at `address` are whole pages of one mapping, which the caller's memory keeps. It is a guest's
    // RAM, which rvmm holds no references into: that its bytes turn to zero is as if the guest had written them.
    if unsafe { libc::madvise(address, len, advice) } != 0 {
        return Err(io::Error::last_os_error());
    }
    region.bitmap().mark_dirty(pages.start as usize, len);
    Ok(())
}

/// Puts anonymous memory where `pages` are. KVM follows: its slots are of addresses, and the addresses stay.
fn replace(region: &Region, pages: &Range<u64>) -> io::Result<()> {
    let len = (pages.end - pages.start) as usize;
    let address = address_of(region, pages);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the `len` bytes at `address` are whole pages of one mapping, which the caller's memory keeps and will unmap
    // whatever is there. Like above it is a guest's RAM, whose bytes may change at any time; it has the same protection
    // as before.
    let mapped = unsafe { libc::mmap(address, len, region.prot(), flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    region.bitmap().mark_dirty(pages.start as usize, len);
    Ok(())
}

fn address_of(region: &Region, pages: &Range<u64>) -> *mut libc::c_void {
    // SAFETY: `pages` lie within the region, so the address is within its mapping.
    unsafe { region.as_ptr().add(pages.start as usize) }.cast()
}

#[cfg(test)]
mod tests;
