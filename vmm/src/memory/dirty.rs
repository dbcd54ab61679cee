//! Which pages of guest memory were written.

use std::ops::Range;

use devices::GuestMemory;
use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::kvm::{self, KvmError};

/// Bytes of a page, as KVM's log and the bitmap count them.
const PAGE_SIZE: u64 = 4096;

/// A bit for each page: guest memory from its lowest address up, without the MMIO gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirtyPages {
    /// For each region of memory its length in bytes and its bits.
    regions: Vec<(u64, Vec<u64>)>,
}

impl DirtyPages {
    /// Takes what KVM's log and the bitmap of `memory` say was written since the last call. Guest memory has to be
    /// tracked.
    ///
    /// # Errors
    /// What KVM said; what was taken before is lost then, so a diff that leaves it out would be wrong.
    pub(crate) fn take(vm: &VmFd, memory: &GuestMemory) -> Result<Self, KvmError> {
        let mut regions = Vec::new();
        for (slot, region) in (0..).zip(memory.iter()) {
            let mut bits =
                vm.get_dirty_log(slot, region.len() as usize).map_err(kvm::failed("KVM_GET_DIRTY_LOG"))?;
            let written = (**region).bitmap().as_ref().map(vm_memory::bitmap::AtomicBitmap::get_and_reset);
            for (bits, written) in bits.iter_mut().zip(written.unwrap_or_default()) {
                *bits |= written;
            }
            regions.push((region.len(), bits));
        }
        Ok(Self { regions })
    }

    /// Adds what `other`, of the same memory, has.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.regions.is_empty() {
            self.regions.clone_from(&other.regions);
            return;
        }
        for ((_, bits), (_, others)) in self.regions.iter_mut().zip(&other.regions) {
            bits.iter_mut().zip(others).for_each(|(bits, others)| *bits |= others);
        }
    }

    /// The pages, as offsets in bytes from the lowest address without the gap: in ascending order, and with a gap
    /// between any two.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut first = 0;
        for (len, bits) in &self.regions {
            for (word, number) in bits.iter().zip(0u64..) {
                let mut rest = *word;
                while rest != 0 {
                    let bit = u64::from(rest.trailing_zeros());
                    let run = u64::from((rest >> bit).trailing_ones());
                    rest &= u64::MAX.checked_shl((bit + run) as u32).unwrap_or(0);
                    let start = first + (number * 64 + bit) * PAGE_SIZE;
                    let end = (start + run * PAGE_SIZE).min(first + len);
                    match ranges.last_mut() {
                        Some(last) if last.end == start => last.end = end,
                        _ => ranges.push(start..end),
                    }
                }
            }
            first += len;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn page(number: u64) -> u64 {
        number * PAGE_SIZE
    }

    #[test]
    fn neighbours_are_one_range_across_words_and_regions() {
        let dirty = DirtyPages {
            regions: vec![(page(128), vec![1 << 63 | 0b110, 1 | 1 << 63]), (page(64), vec![u64::MAX])],
        };
        assert_eq!(dirty.ranges(), [page(1)..page(3), page(63)..page(65), page(127)..page(192)]);
    }

    #[test]
    fn bits_past_the_end_of_a_region_are_nothing() {
        let dirty = DirtyPages { regions: vec![(page(2), vec![u64::MAX]), (page(1), vec![0])] };
        assert_eq!(dirty.ranges().as_slice(), std::slice::from_ref(&(0..page(2))));
        assert_eq!(DirtyPages::default().ranges(), []);
    }

    #[test]
    fn what_is_added_is_there_as_well() {
        let mut dirty = DirtyPages::default();
        dirty.add(&DirtyPages { regions: vec![(page(64), vec![1])] });
        dirty.add(&DirtyPages { regions: vec![(page(64), vec![0b101])] });
        assert_eq!(dirty.ranges(), [0..page(1), page(2)..page(3)]);
    }
}
