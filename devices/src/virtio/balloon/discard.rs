//! Gives pages of guest memory back to the host: the one place of the balloon that is unsafe.
#![expect(unsafe_code, reason = "madvise(2) has no safe wrapper for a mapping that vm-memory owns")]

use std::io;
use std::ops::Range;

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::PAGE_SIZE;
use crate::GuestMemory;

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

/// Drops the contents of the guest-physical addresses `range`, as far as whole pages of guest memory lie in it: they
/// read as zeroes from now on.
///
/// A dirty bitmap is not told. What a snapshot has of such a page, the old content or zeroes, is all the same to a
/// guest that gave it away.
pub(super) fn discard(memory: &GuestMemory, range: &Range<u64>) -> Discarded {
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
        let (start, end) =
            ((start - first).next_multiple_of(PAGE_SIZE), (end - first) / PAGE_SIZE * PAGE_SIZE);
        let Some(len) = end.checked_sub(start).filter(|len| *len > 0) else { continue };
        let shared = region.flags() & libc::MAP_SHARED != 0;
        // A private mapping of a file would show the file again, not zeroes.
        if !shared && region.file_offset().is_some() {
            result.refused = Some(io::ErrorKind::Unsupported.into());
            continue;
        }
        // What is shared stays with its file unless a hole is made there.
        let advice = if shared { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
        // SAFETY: `start` is less than the mapping's length, so the address is within it.
        let address = unsafe { region.as_ptr().add(start as usize) };
        // SAFETY: the `len` bytes at `address` are whole pages of one mapping, which `memory` keeps. It is a guest's
        // RAM, which rvmm holds no references into: that its bytes turn to zero is as if the guest had written them.
        match unsafe { libc::madvise(address.cast(), len as usize, advice) } {
            0 => result.bytes += len,
            _ => result.refused = Some(io::Error::last_os_error()),
        }
    }
    result.outside = (range.end - range.start).saturating_sub(inside);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::queue_harness::guest_memory;
    use vm_memory::mmap::MmapRegionBuilder;
    use vm_memory::{Bytes, FileOffset, GuestAddress, GuestRegionMmap};

    fn byte(memory: &GuestMemory, address: u64) -> u8 {
        memory.read_obj(GuestAddress(address)).unwrap()
    }

    fn filled(memory: GuestMemory, len: usize) -> GuestMemory {
        memory.write_slice(&vec![0xaa; len], GuestAddress(0)).unwrap();
        memory
    }

    #[test]
    fn whole_pages_turn_to_zero_and_parts_of_pages_stay() {
        let memory = filled(guest_memory(&[(0, 0x2000), (0x2000, 0x2000)]), 0x4000);
        let discarded = discard(&memory, &(0x800..0x3800));
        assert_eq!((discarded.bytes, discarded.outside), (0x2000, 0));
        assert!(discarded.refused.is_none());
        let bytes = [0, 0xfff, 0x1000, 0x2fff, 0x3000, 0x3fff].map(|address| byte(&memory, address));
        assert_eq!(bytes, [0xaa, 0xaa, 0, 0, 0xaa, 0xaa]);
    }

    #[test]
    fn what_is_outside_of_memory_is_left_alone() {
        let memory = filled(guest_memory(&[(0, 0x2000), (0x8000, 0x1000)]), 0x2000);
        let discarded = discard(&memory, &(0x1000..0x9000));
        assert_eq!((discarded.bytes, discarded.outside), (0x2000, 0x6000));
        assert_eq!([byte(&memory, 0xfff), byte(&memory, 0x1000)], [0xaa, 0]);
        for range in [0x2000..0x8000, 0x9000..u64::MAX, u64::MAX - 1..u64::MAX] {
            assert_eq!(
                (discard(&memory, &range).bytes, discard(&memory, &range).outside),
                (0, range.end - range.start)
            );
        }
    }

    fn of_file(flags: libc::c_int) -> (GuestMemory, std::fs::File) {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(0x4000).unwrap();
        let mapping = MmapRegionBuilder::new_with_bitmap(0x4000, None)
            .with_file_offset(FileOffset::new(file.try_clone().unwrap(), 0))
            .with_mmap_flags(flags)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .build()
            .unwrap();
        let region = GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
        (filled(GuestMemory::from_regions(vec![region]).unwrap(), 0x4000), file)
    }

    #[test]
    fn a_file_behind_shared_memory_gets_a_hole() {
        use std::os::unix::fs::MetadataExt;
        let (memory, file) = of_file(libc::MAP_SHARED);
        assert_eq!(file.metadata().unwrap().blocks() * 512, 0x4000);
        assert_eq!(discard(&memory, &(0x1000..0x3000)).bytes, 0x2000);
        assert_eq!(file.metadata().unwrap().blocks() * 512, 0x2000);
        assert_eq!([byte(&memory, 0xfff), byte(&memory, 0x1000)], [0xaa, 0]);
    }

    #[test]
    fn a_private_copy_of_a_file_is_kept() {
        let (memory, _file) = of_file(libc::MAP_PRIVATE);
        let discarded = discard(&memory, &(0..0x4000));
        assert_eq!((discarded.bytes, discarded.outside), (0, 0));
        assert!(discarded.refused.is_some());
        assert_eq!(byte(&memory, 0), 0xaa);
    }
}
