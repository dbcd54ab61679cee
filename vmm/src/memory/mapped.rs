//! Guest RAM that comes from the memory files of a snapshot.
//!
//! Such a file has guest memory from its lowest address up, without the MMIO gap. It is mapped privately: a page is read
//! when the guest first touches it, and what is only read is shared, by the page cache, with every other VM of the same
//! snapshot. The file is never written.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use devices::GuestMemory;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::{HugePages, MemoryError, Used, data_extents, prefetch, ranges, region};
use crate::seccomp::Filter;

/// The memory files of a snapshot.
#[derive(Debug)]
pub struct Source {
    /// All of memory; as long as the guest's, or longer.
    pub base: Arc<File>,
    /// What later diffs have in its place, the oldest first.
    pub overlays: Vec<Overlay>,
}

/// The pages of a diff.
#[derive(Debug)]
pub struct Overlay {
    /// Its memory file.
    pub file: Arc<File>,
    /// Which pages it has: offsets in it, in bytes, in ascending order.
    pub pages: Vec<Range<u64>>,
}

/// Guest RAM of `mib` MiB with what is in `source`. Its dirty bitmap, if it is to have one, is clear.
///
/// Pages of hugetlbfs cannot be those of a file: everything is read into them.
///
/// # Errors
/// [`MemoryError`] when the host has no room, or a file cannot be read.
pub fn restore(
    mib: u64,
    source: &Source,
    huge_pages: HugePages,
    track_dirty: bool,
) -> Result<GuestMemory, MemoryError> {
    restore_used(mib, source, huge_pages, track_dirty, &[], None)
}

/// The same; what another guest `used` of that memory is at hand for this one, or soon is. `filter` is for the thread that reads
/// ahead.
///
/// # Errors
/// As of [`restore`].
pub fn restore_used(
    mib: u64,
    source: &Source,
    huge_pages: HugePages,
    track_dirty: bool,
    used: &[Used],
    filter: Option<&Filter>,
) -> Result<GuestMemory, MemoryError> {
    let copied = huge_pages == HugePages::Hugetlb2M;
    let mut offset = 0;
    let mut regions = Vec::new();
    for (base, len) in ranges(mib) {
        let file = (!copied).then(|| (source.base.clone(), offset));
        regions.push(region(base, len, huge_pages, track_dirty, file)?);
        offset += len;
    }
    let memory = GuestMemory::from_regions(regions).map_err(|_| MemoryError::Layout { mib })?;
    let extents = data_extents(&source.base, offset);
    let mut holes = Vec::new();
    if copied {
        extents.iter().try_for_each(|extent| read(&memory, &source.base, extent))?;
    } else {
        holes = uncover_holes(&memory, &extents)?;
    }
    for Overlay { file, pages } in &source.overlays {
        pages.iter().try_for_each(|pages| read(&memory, file, pages))?;
    }
    for region in memory.iter() {
        (**region).bitmap().iter().for_each(AtomicBitmap::reset);
    }
    if !copied {
        prefetch(&memory, used, &holes, filter);
    }
    Ok(memory)
}

/// Bytes of a hole that is worth a mapping of its own.
const LARGE_HOLE: u64 = 256 << 10;
/// Mappings that holes may make. A process has 65530.
const MAX_HOLES: usize = 256;

/// Puts anonymous memory where the file has long holes, as `extents` lie between them. A page of a hole would take one of
/// the page cache when it is read, one of the file if it is on tmpfs, and two when it is written. Returns where that is.
#[expect(unsafe_code, reason = "mmap(2) over a part of a mapping has no safe wrapper")]
fn uncover_holes(memory: &GuestMemory, extents: &[Range<u64>]) -> Result<Vec<Range<u64>>, MemoryError> {
    let mut uncovered = Vec::new();
    let mut first = 0;
    for region in memory.iter() {
        let last = first + region.len();
        let starts = extents.iter().map(|extent| extent.end.max(first));
        let ends = extents.iter().map(|extent| extent.start).skip(1).chain([u64::MAX]);
        let before = extents.first().map_or(u64::MAX, |extent| extent.start);
        let holes = std::iter::once(first..before).chain(starts.zip(ends).map(|(start, end)| start..end));
        let holes =
            holes.map(|hole| hole.start.max(first).next_multiple_of(0x1000)..hole.end.min(last) & !0xfff);
        let large = holes.filter(|hole| hole.end.saturating_sub(hole.start) >= LARGE_HOLE);
        for hole in large.take(MAX_HOLES) {
            let len = (hole.end - hole.start) as usize;
            let offset = (hole.start - first) as usize;
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            // SAFETY: the hole lies in the region, so the address is within its mapping.
            let address = unsafe { region.as_ptr().add(offset) };
            // SAFETY: whole pages of one mapping, which nobody has touched or refers into yet, are replaced by others that
            // read the same, as zeroes. They are unmapped with the mapping.
            let mapped = unsafe { libc::mmap(address.cast(), len, prot, flags, -1, 0) };
            if mapped == libc::MAP_FAILED {
                let source = io::Error::last_os_error();
                return Err(MemoryError::Map { mib: len as u64 >> 20, hint: "", source });
            }
            uncovered.push(hole);
        }
        first = last;
    }
    Ok(uncovered)
}

/// Reads the offsets `range` of `file` to where they belong in `memory`.
fn read(memory: &GuestMemory, mut file: &File, range: &Range<u64>) -> Result<(), MemoryError> {
    let failed = |offset| move |source| MemoryError::Read { offset, source };
    file.seek(SeekFrom::Start(range.start)).map_err(failed(range.start))?;
    let mut first = 0;
    for region in memory.iter() {
        let start = range.start.max(first);
        let end = range.end.min(first + region.len());
        if let Some(count) = end.checked_sub(start).filter(|count| *count > 0) {
            let address = GuestAddress(region.start_addr().raw_value() + (start - first));
            let outside = || failed(start)(io::ErrorKind::InvalidInput.into());
            let count = usize::try_from(count).map_err(|_| outside())?;
            memory
                .read_exact_volatile_from(address, &mut file, count)
                .map_err(|error| failed(start)(io::Error::other(error.to_string())))?;
        }
        first += region.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MIB;
    use std::os::unix::fs::FileExt as _;
    use vm_memory::bitmap::Bitmap as _;

    const SIZE: u64 = 8 * MIB;
    const EXTENT: u64 = 3 * MIB;

    /// A file for 8 MiB with data at 3 MiB alone, and a diff of it that has the page behind and the last one.
    fn source() -> Source {
        let file = |pages: &[(u64, u8)]| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(SIZE).unwrap();
            for (offset, byte) in pages {
                file.write_all_at(&[*byte; 4096], *offset).unwrap();
            }
            file
        };
        let (behind, last) = (EXTENT + 4096, SIZE - 4096);
        let overlay = Overlay {
            file: Arc::new(file(&[(behind, 3), (last, 4)])),
            pages: vec![behind..behind + 4096, last..SIZE],
        };
        Source { base: Arc::new(file(&[(EXTENT, 1), (EXTENT + 4096, 2)])), overlays: vec![overlay] }
    }

    fn byte(memory: &GuestMemory, address: u64) -> u8 {
        memory.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn a_page_is_that_of_the_last_file_that_has_it() {
        let memory = restore(8, &source(), HugePages::None, true).unwrap();
        assert_eq!([0, EXTENT, EXTENT + 4096, SIZE - 1].map(|address| byte(&memory, address)), [0, 1, 3, 4]);
        let region = memory.iter().next().unwrap();
        assert!((0..SIZE as usize).step_by(4096).all(|offset| !region.bitmap().dirty_at(offset)));
    }

    #[test]
    fn what_a_guest_writes_does_not_reach_the_file() {
        let source = source();
        let memory = restore(8, &source, HugePages::None, false).unwrap();
        for address in [0, EXTENT, 5 * MIB] {
            memory.write_obj(0xeeu8, GuestAddress(address)).unwrap();
        }
        let other = restore(8, &source, HugePages::None, false).unwrap();
        assert_eq!([0, EXTENT, 5 * MIB].map(|address| byte(&other, address)), [0, 1, 0]);
        assert_eq!(byte(&memory, EXTENT), 0xee);
    }

    #[test]
    fn long_holes_are_no_pages_of_the_file() {
        let source = source();
        let memory = restore(8, &source, HugePages::None, false).unwrap();
        let start = memory.iter().next().unwrap().as_ptr() as usize;
        let of_file = std::fs::read_to_string("/proc/self/maps").unwrap();
        let of_file = of_file.lines().filter(|line| line.contains("(deleted)")).filter_map(|line| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            let parse = |number| usize::from_str_radix(number, 16).ok();
            Some((parse(from)?, parse(to)?)).filter(|(from, _)| (start..start + SIZE as usize).contains(from))
        });
        let mapped: usize = of_file.map(|(from, to)| to - from).sum();
        assert!((8192..1 << 20).contains(&mapped), "{mapped} bytes are mapped from the file");
    }
}
