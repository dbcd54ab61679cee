//! What the guest says of its memory (virtio 1.3, 5.5.6.3).

use serde::{Deserialize, Serialize};

use super::PAGES_PER_MIB;

/// Bytes of one statistic in the buffer: a 16-bit tag and a 64-bit value, packed.
const ENTRY_LEN: usize = 10;
/// Bytes of a buffer that are looked at; there are 16 tags.
pub(super) const MAX_BUFFER_LEN: u64 = 64 * ENTRY_LEN as u64;

/// GET `/balloon/statistics`. What the guest has not told is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonStatistics {
    /// Pages of 4 KiB that the balloon is to have.
    pub target_pages: u32,
    /// Pages of 4 KiB that it has.
    pub actual_pages: u32,
    /// The same in MiB.
    pub target_mib: u32,
    /// The same in MiB, rounded down.
    pub actual_mib: u32,
    /// Bytes swapped in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Bytes swapped out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Page faults that waited for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Bytes that are not used for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// Bytes that the guest has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<u64>,
    /// Bytes that a new process could have without swapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_memory: Option<u64>,
    /// Bytes of files that are cached and could be given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_caches: Option<u64>,
    /// Huge pages allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that were not to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugetlb_failures: Option<u64>,
    /// Processes killed for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// Times that an allocation had to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alloc_stall: Option<u64>,
    /// Pages that were looked at in the background, to be reclaimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub async_scan: Option<u64>,
    /// Pages that an allocation looked at, to reclaim them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_scan: Option<u64>,
    /// Pages reclaimed in the background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub async_reclaim: Option<u64>,
    /// Pages reclaimed by an allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_reclaim: Option<u64>,
}

impl BalloonStatistics {
    /// The sizes of the balloon, in pages.
    pub(super) fn set_sizes(&mut self, target: u32, actual: u32) {
        self.target_pages = target;
        self.actual_pages = actual;
        self.target_mib = target / PAGES_PER_MIB;
        self.actual_mib = actual / PAGES_PER_MIB;
    }

    /// Takes what the guest has written to its buffer. Tags that nobody knows are passed over, as is a rest that is
    /// too short.
    pub(super) fn take(&mut self, buffer: &[u8]) {
        for entry in buffer.chunks_exact(ENTRY_LEN) {
            let Some((tag, value)) = entry.split_first_chunk::<2>() else { continue };
            let Some(value) = value.first_chunk::<8>().map(|value| u64::from_le_bytes(*value)) else {
                continue;
            };
            if let Some(field) = self.field(u16::from_le_bytes(*tag)) {
                *field = Some(value);
            }
        }
    }

    /// The field that a tag names (5.5.6.4); tags from 10 on are Linux's.
    fn field(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        Some(match tag {
            0 => &mut self.swap_in,
            1 => &mut self.swap_out,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free_memory,
            5 => &mut self.total_memory,
            6 => &mut self.available_memory,
            7 => &mut self.disk_caches,
            8 => &mut self.hugetlb_allocations,
            9 => &mut self.hugetlb_failures,
            10 => &mut self.oom_kill,
            11 => &mut self.alloc_stall,
            12 => &mut self.async_scan,
            13 => &mut self.direct_scan,
            14 => &mut self.async_reclaim,
            15 => &mut self.direct_reclaim,
            _ => return None,
        })
    }
}
