//! What the host's kernel knows of the pages of this process: `/proc/self/pagemap` (Linux,
//! `Documentation/admin-guide/mm/pagemap.rst`).
#![expect(unsafe_code, reason = "PAGEMAP_SCAN has no safe wrapper")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use super::pages::PAGE_SIZE;

/// The page is one of a file, and not a copy that this process has of it (`PAGE_IS_FILE` of `linux/fs.h`).
pub(super) const FILE_BACKED: u64 = 1 << 2;
/// The page is in memory (`PAGE_IS_PRESENT`).
const PRESENT: u64 = 1 << 3;
/// The page is in swap (`PAGE_IS_SWAPPED`).
const SWAPPED: u64 = 1 << 4;
/// The page is that of zeroes, which all share (`PAGE_IS_PFNZERO`). Before Linux 6.7 it is not known.
pub(super) const ZERO: u64 = 1 << 5;

/// Another process has the page as well, or it is that of zeroes. Known only where [`ZERO`] is not.
pub(super) const PERHAPS_ZERO: u64 = 1 << 63;

/// `struct page_region` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

ioctl_iowr_nr!(PAGEMAP_SCAN, 0x66, 16, Scan);

/// Regions that are asked for at once.
const REGIONS: usize = 1024;
/// Bytes of what there is of each page in the file.
const ENTRY_SIZE: u64 = 8;
/// In an entry: only this process has the page.
const EXCLUSIVE: u64 = 1 << 56;
/// Pages whose entries are read at once.
const AT_ONCE: u64 = 4096;

/// Calls `take` with the pages of `addresses`, which are whole ones, in ascending order, that are in memory or in swap; as
/// ranges of addresses, with what is known of them.
///
/// # Errors
/// What the host said.
pub(super) fn each(addresses: Range<u64>, take: &mut dyn FnMut(Range<u64>, u64)) -> io::Result<()> {
    let pagemap = File::open("/proc/self/pagemap")?;
    match scan(&pagemap, &addresses, take)? {
        Scanned::All => Ok(()),
        Scanned::Unknown => read(&pagemap, &addresses, take),
    }
}

enum Scanned {
    All,
    /// Linux before 6.7.
    Unknown,
}

/// Has the kernel look for them: what it takes depends on the pages that there are, and not on the addresses.
fn scan(
    pagemap: &File,
    addresses: &Range<u64>,
    take: &mut dyn FnMut(Range<u64>, u64),
) -> io::Result<Scanned> {
    let mut regions = vec![Region::default(); REGIONS];
    let mut start = addresses.start;
    while start < addresses.end {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            start,
            end: addresses.end,
            vec: regions.as_mut_ptr().expose_provenance() as u64,
            vec_len: REGIONS as u64,
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: PRESENT | SWAPPED | ZERO | FILE_BACKED,
            ..Scan::default()
        };
        // SAFETY: `scan` is what the kernel expects, and `vec` and `vec_len` in it are those of `regions`, which the kernel
        // writes no further than.
        let found = unsafe { ioctl_with_mut_ref(pagemap, PAGEMAP_SCAN(), &mut scan) };
        let Ok(found) = usize::try_from(found) else {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::ENOTTY | libc::EINVAL) if start == addresses.start => return Ok(Scanned::Unknown),
                _ => return Err(error),
            }
        };
        for region in regions.iter().take(found) {
            take(region.start..region.end, region.categories);
        }
        if scan.walk_end <= start {
            break;
        }
        start = scan.walk_end;
    }
    Ok(Scanned::All)
}

/// Reads what there is of each page.
fn read(pagemap: &File, addresses: &Range<u64>, take: &mut dyn FnMut(Range<u64>, u64)) -> io::Result<()> {
    let mut buffer = vec![0; (AT_ONCE * ENTRY_SIZE) as usize];
    for start in (addresses.start..addresses.end).step_by((AT_ONCE * PAGE_SIZE) as usize) {
        let pages = AT_ONCE.min((addresses.end - start) / PAGE_SIZE);
        let entries = buffer.get_mut(..(pages * ENTRY_SIZE) as usize).unwrap_or_default();
        pagemap.read_exact_at(entries, start / PAGE_SIZE * ENTRY_SIZE)?;
        for (entry, start) in entries.as_chunks().0.iter().zip((start..).step_by(PAGE_SIZE as usize)) {
            let bits = u64::from_le_bytes(*entry);
            let known = [(63, PRESENT), (62, SWAPPED), (61, FILE_BACKED)];
            let page =
                known.iter().filter(|(bit, _)| bits >> bit & 1 == 1).fold(0, |page, (_, is)| page | is);
            let page = if page == PRESENT && bits & EXCLUSIVE == 0 { page | PERHAPS_ZERO } else { page };
            if page & (PRESENT | SWAPPED) != 0 {
                take(start..start + PAGE_SIZE, page);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{self, HugePages};
    use skip::Capability;
    use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

    #[test]
    fn zeroes_that_were_read_are_told_from_what_was_written() {
        let memory = memory::create(4, HugePages::None, false).unwrap();
        let start = memory.iter().next().unwrap().as_ptr().addr() as u64;
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), 0);
        memory.write_obj(1_u8, GuestAddress(2 << 20)).unwrap();
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let mut found = Vec::new();
        read(&pagemap, &(start..start + (4 << 20)), &mut |range, page| {
            found.push((range.start - start, page));
        })
        .unwrap();
        let of = |at| found.iter().find(|(offset, _)| *offset == at).map(|(_, page)| *page);
        assert!(of(0).is_none_or(|page| page & (PERHAPS_ZERO | FILE_BACKED) != 0), "{:x?}", of(0));
        assert_eq!(of(2 << 20), Some(PRESENT));
    }

    #[test]
    fn both_ways_to_ask_find_the_same_pages() {
        let memory = memory::create(16, HugePages::None, false).unwrap();
        // More than are asked for at once, with gaps.
        for page in (0..4096_u64).filter(|page| page % 3 == 0) {
            memory.write_obj(1_u8, GuestAddress(page * PAGE_SIZE)).unwrap();
        }
        let start = memory.iter().next().unwrap().as_ptr().addr() as u64;
        let addresses = start..start + (16 << 20);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let (mut scanned, mut found) = (Vec::new(), Vec::new());
        let every = |pages: &mut Vec<_>, range: Range<u64>, page| {
            pages.extend(range.step_by(PAGE_SIZE as usize).map(|address| (address, page)));
        };
        read(&pagemap, &addresses, &mut |range, page| every(&mut found, range, page)).unwrap();
        assert!(found.len() >= 4096 / 3);
        match scan(&pagemap, &addresses, &mut |range, page| every(&mut scanned, range, page)).unwrap() {
            Scanned::All => assert!(scanned == found, "{} and {} pages", scanned.len(), found.len()),
            Scanned::Unknown => skip::skip(Capability::PagemapScan, "this kernel has no PAGEMAP_SCAN"),
        }
    }
}
