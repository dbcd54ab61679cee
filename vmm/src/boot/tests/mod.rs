//! Tests of the loaders, without KVM.

mod bzimage;
mod elf;
mod files;
mod handover;
mod hostile;
mod image;
mod initrd;
mod registers;

use super::fixture::{MIB, memory, memory_of};
use super::{MemoryMap, RangeKind};

/// Start, end and kind of every range in the map for `size` bytes of memory.
fn map_of(size: u64) -> Vec<(u64, u64, RangeKind)> {
    let map = MemoryMap::new(&memory(size));
    map.ranges().iter().map(|range| (range.start, range.end, range.kind)).collect()
}

#[test]
fn memory_map_leaves_out_the_hole_below_1_mib() {
    assert_eq!(
        map_of(128 * MIB),
        [
            (0, 0x9_fc00, RangeKind::Ram),
            (0xe_0000, 0xf_f000, RangeKind::Acpi),
            (0xf_f000, 0x10_0000, RangeKind::Reserved),
            (0x10_0000, 128 * MIB, RangeKind::Ram),
        ]
    );
}

#[test]
fn memory_map_goes_on_above_4_gib() {
    let map = map_of(5 << 30);
    assert_eq!(map[3], (0x10_0000, 0xc000_0000, RangeKind::Ram));
    assert_eq!(map[4], (1 << 32, (1 << 32) + (2 << 30), RangeKind::Ram));
}

#[test]
fn memory_map_joins_neighbouring_regions() {
    let split = memory_of(&[(0, 64 * MIB), (64 * MIB, 64 * MIB)]);
    assert_eq!(MemoryMap::new(&split), MemoryMap::new(&memory(128 * MIB)));
}

#[test]
fn memory_map_of_a_tiny_memory_has_nothing_outside_of_it() {
    assert_eq!(map_of(4096), [(0, 4096, RangeKind::Ram)]);
}
