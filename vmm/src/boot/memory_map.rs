//! The memory map that the guest is told: which guest-physical addresses are RAM.

use devices::GuestMemory;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::layout;

/// What a range of guest-physical addresses is for. The numbers are those of ACPI 6.5, table 15.1 "Address Range Types",
/// which e820 and the PVH memory map share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// `AddressRangeMemory`: RAM.
    Ram = 1,
    /// `AddressRangeReserved`: not to be used for anything else.
    Reserved = 2,
    /// `AddressRangeACPI`: holds ACPI tables; RAM once the guest has read them.
    Acpi = 3,
}

/// A range of guest-physical addresses, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// What the range is for.
    pub kind: RangeKind,
}

impl MemoryRange {
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// The guest's memory map: ranges in ascending order that do not overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    ranges: Vec<MemoryRange>,
}

impl MemoryMap {
    /// Derives the map from the regions of `memory`: all of it is RAM but for the hole from [`layout::LOW_RAM_END`] to
    /// [`layout::HIMEM_START`], in which only the ACPI tables and the VM generation ID are named.
    pub fn new(memory: &GuestMemory) -> Self {
        let mut ranges: Vec<MemoryRange> = Vec::with_capacity(5);
        for region in memory.iter() {
            let start = region.start_addr().raw_value();
            let end = start.saturating_add(region.len());
            let kinds = [
                (0, layout::LOW_RAM_END, RangeKind::Ram),
                (layout::ACPI_START, layout::ACPI_END, RangeKind::Acpi),
                (layout::VMGENID_START, layout::VMGENID_END, RangeKind::Reserved),
                (layout::HIMEM_START, u64::MAX, RangeKind::Ram),
            ];
            for (from, to, kind) in kinds {
                let (start, end) = (start.max(from), end.min(to));
                if start >= end {
                    continue;
                }
                match ranges.last_mut() {
                    // Neighbouring regions (one memory slot each) are one range to the guest.
                    Some(last) if last.end == start && last.kind == kind => last.end = end,
                    _ => ranges.push(MemoryRange { start, end, kind }),
                }
            }
        }
        Self { ranges }
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    /// The RAM ranges in ascending order.
    pub fn ram(&self) -> impl DoubleEndedIterator<Item = &MemoryRange> {
        self.ranges.iter().filter(|range| range.kind == RangeKind::Ram)
    }

    /// Whether all of `start..end` is RAM.
    pub fn is_ram(&self, start: u64, end: u64) -> bool {
        self.ram().any(|range| range.start <= start && end <= range.end)
    }

    /// Amount of RAM in bytes.
    pub fn ram_size(&self) -> u64 {
        self.ram().map(MemoryRange::size).sum()
    }
}
