//! Guest RAM: anonymous memory on both sides of the MMIO gap, given to KVM slot by slot.

mod alignment;
mod dirty;
mod extents;
pub(crate) mod handshake;
mod mapped;
mod prefault;
mod prefetch;
mod uffd;
pub(crate) mod userfault;

use std::fs::File;
use std::io;
use std::sync::Arc;

use devices::GuestMemory;
use serde::{Deserialize, Serialize};
use vm_memory::bitmap::{AtomicBitmap, NewBitmap};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

use self::alignment::Hole;
pub(crate) use self::dirty::DirtyPages;
pub use self::extents::data_extents;
pub use self::mapped::{Overlay, Source, restore, restore_used};
pub use self::prefault::prefault;
pub use self::prefetch::Used;
use self::prefetch::prefetch;
#[cfg(feature = "test-harness")]
pub(crate) use self::uffd::userfault;
pub use self::uffd::{LOST, Pager, PagerError, serve_by};
use crate::layout;

/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;

/// Which pages of the host back guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// 4 KiB pages, unless the host's policy says otherwise.
    #[default]
    None,
    /// Transparent huge pages where the host can (`MADV_HUGEPAGE`).
    Transparent,
    /// 2 MiB pages of hugetlbfs, which the host must have set aside.
    #[serde(rename = "2M")]
    Hugetlb2M,
}

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused the mapping.
    #[error("cannot reserve {mib} MiB of guest memory; give the guest less, or the host more{hint}")]
    Map {
        /// Size of the part that failed, in MiB.
        mib: u64,
        /// What else to look at.
        hint: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A part of a snapshot's memory that cannot be read.
    #[error("cannot read the memory of the snapshot at offset {offset:#x}")]
    Read {
        /// Where in the memory file, in bytes.
        offset: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Nobody serves it.
    #[error(transparent)]
    Pager(#[from] PagerError),
    /// A region that vm-memory does not take.
    #[error("guest memory of {mib} MiB does not fit the address space")]
    Layout {
        /// Size of the part that failed, in MiB.
        mib: u64,
    },
}

/// Start and length, in bytes, of the RAM of a guest with `mib` MiB: below the MMIO gap, and what does not fit there above it.
pub fn ranges(mib: u64) -> Vec<(u64, u64)> {
    let size = mib.saturating_mul(MIB);
    let low = size.min(layout::MMIO_GAP_START);
    let mut ranges = vec![(0, low)];
    if size > low {
        ranges.push((layout::HIGH_RAM_START, size - low));
    }
    ranges
}

/// Reserves `mib` MiB of guest RAM. Host pages are taken when the guest first touches them.
///
/// # Errors
/// [`MemoryError::Map`] when the host has no room, or no huge pages.
pub fn create(mib: u64, huge_pages: HugePages, track_dirty: bool) -> Result<GuestMemory, MemoryError> {
    let regions = ranges(mib)
        .into_iter()
        .map(|(base, len)| region(base, len, huge_pages, track_dirty, None))
        .collect::<Result<Vec<_>, _>>()?;
    GuestMemory::from_regions(regions).map_err(|_| MemoryError::Layout { mib })
}

/// A part of guest memory: anonymous, or a private mapping of a file from an offset on.
fn region(
    base: u64,
    len: u64,
    huge_pages: HugePages,
    track_dirty: bool,
    file: Option<(Arc<File>, u64)>,
) -> Result<GuestRegionMmap<Option<AtomicBitmap>>, MemoryError> {
    let mib = len / MIB;
    let size = usize::try_from(len).map_err(|_| MemoryError::Layout { mib })?;
    let (flags, hint) = match huge_pages {
        HugePages::Hugetlb2M => (
            libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            " (huge pages: raise /proc/sys/vm/nr_hugepages, or give --huge-pages none)",
        ),
        HugePages::None | HugePages::Transparent => (libc::MAP_NORESERVE, ""),
    };
    let hole = Hole::new(size);
    let builder = MmapRegionBuilder::new_with_bitmap(size, track_dirty.then(|| AtomicBitmap::with_len(size)))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
    let builder = match file {
        None => builder.with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags),
        Some((file, offset)) => builder
            .with_mmap_flags(libc::MAP_PRIVATE | flags)
            .with_file_offset(FileOffset::from_arc(file, offset)),
    };
    let mapping = builder.build().map_err(|error| {
        let source = match error {
            vm_memory::mmap::MmapRegionError::Mmap(source) => source,
            other => io::Error::other(other.to_string()),
        };
        MemoryError::Map { mib, hint, source }
    })?;
    drop(hole);
    if huge_pages == HugePages::Transparent {
        advise_huge(&mapping);
    }
    GuestRegionMmap::new(mapping, GuestAddress(base)).ok_or(MemoryError::Layout { mib })
}

#[expect(unsafe_code, reason = "madvise has no safe wrapper for a mapping that vm-memory owns")]
fn advise_huge(mapping: &vm_memory::MmapRegion<Option<AtomicBitmap>>) {
    // SAFETY: the range is exactly the mapping, which is alive; MADV_HUGEPAGE changes no content.
    let result = unsafe { libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_HUGEPAGE) };
    if result != 0 {
        log::warn!("the host has no transparent huge pages: {}", io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn memory_is_split_around_the_gap() {
        assert_eq!(ranges(128), [(0, 128 * MIB)]);
        assert_eq!(ranges(3072), [(0, 0xc000_0000)]);
        assert_eq!(ranges(5120), [(0, 0xc000_0000), (0x1_0000_0000, 2048 * MIB)]);
    }

    #[test]
    fn both_sides_of_the_gap_hold_what_is_written_and_the_gap_does_not() {
        let memory = create(3072 + 16, HugePages::None, false).unwrap();
        for address in [0, 0xbfff_fff8, 0x1_0000_0000, 0x1_00ff_fff8] {
            memory.write_obj(address ^ 0x55, GuestAddress(address)).unwrap();
            assert_eq!(memory.read_obj::<u64>(GuestAddress(address)).unwrap(), address ^ 0x55);
        }
        for address in [0xc000_0000, 0xffff_fff8, 0x1_0100_0000] {
            memory.write_obj(1u64, GuestAddress(address)).unwrap_err();
        }
        assert_eq!(memory.iter().map(GuestMemoryRegion::len).sum::<u64>(), (3072 + 16) * MIB);
    }

    #[test]
    fn memory_starts_where_a_huge_page_can() {
        for region in create(3072 + 16, HugePages::None, false).unwrap().iter() {
            assert_eq!(region.as_ptr() as usize % (2 << 20), 0);
        }
    }

    #[test]
    fn memory_that_the_host_cannot_map_is_refused_with_its_size() {
        let error = create(1 << 30, HugePages::None, false).unwrap_err().to_string();
        assert!(error.contains(&((1u64 << 30) - 3072).to_string()), "{error}");
    }
}
