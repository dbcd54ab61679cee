//! The initial RAM disk: where it goes, and getting it there.

use std::path::Path;

use devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::error::ImageError;
use super::image;
use super::kernel::Kernel;
use super::memory_map::MemoryMap;
use crate::layout;

/// The initrd begins on a page of its own, so that the guest can free all of its memory.
const PAGE_SIZE: u64 = 4096;

/// Where the initrd is in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initrd {
    /// First guest-physical address.
    pub(super) address: u64,
    /// Size in bytes.
    pub(super) size: u64,
}

/// Reads the initrd at `path` into guest memory, beside `kernel`.
pub(super) fn load(
    memory: &GuestMemory,
    map: &MemoryMap,
    kernel: &Kernel,
    path: &Path,
) -> Result<Initrd, ImageError> {
    let (mut file, size) = image::open(path)?;
    let address = place(map, kernel, size)?;
    let count = usize::try_from(size).unwrap_or(usize::MAX);
    memory.read_exact_volatile_from(GuestAddress(address), &mut file, count).map_err(ImageError::Copy)?;
    Ok(Initrd { address, size })
}

/// The highest page-aligned address with `size` bytes of free RAM behind it, above 1 MiB and below the kernel's limit.
pub(super) fn place(map: &MemoryMap, kernel: &Kernel, size: u64) -> Result<u64, ImageError> {
    let mut largest = 0;
    for range in map.ram().rev() {
        let bottom = range.start.max(layout::HIMEM_START);
        let mut top = range.end.min(kernel.initrd_limit);
        // From the top down: the room above each range of the kernel, then what is below the lowest.
        for (start, end) in kernel.occupied.iter().rev().copied().chain([(0, 0)]) {
            let floor = end.max(bottom);
            if top > floor {
                let free = top.saturating_sub(floor);
                let address = top.saturating_sub(size) / PAGE_SIZE * PAGE_SIZE;
                if free >= size && address >= floor {
                    return Ok(address);
                }
                largest = largest.max(free);
            }
            if (start, end) != (0, 0) {
                top = top.min(start);
            }
        }
    }
    Err(ImageError::NoRoom { size, limit: kernel.initrd_limit, largest, ram: map.ram_size() })
}
