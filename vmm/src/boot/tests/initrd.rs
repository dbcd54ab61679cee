//! Where the initrd goes.

use crate::boot::fixture::{MIB, memory};
use crate::boot::initrd::place;
use crate::boot::{EntryPoint, ImageError, Kernel, MemoryMap};
use crate::layout;

/// Places `size` bytes in `ram` bytes of memory, beside a kernel at `occupied`.
fn placed(ram: u64, occupied: &[(u64, u64)], limit: u64, size: u64) -> Result<u64, ImageError> {
    let kernel = Kernel {
        entry: EntryPoint::Linux64(0),
        occupied: occupied.to_vec(),
        cmdline_limit: 0,
        initrd_limit: limit,
        segments: Vec::new(),
        setup_header: None,
    };
    place(&MemoryMap::new(&memory(ram)), &kernel, size)
}

const GAP: u64 = layout::MMIO_GAP_START;
const KERNEL: &[(u64, u64)] = &[(16 * MIB, 24 * MIB)];

#[test]
fn it_ends_where_memory_does_on_a_page() {
    assert_eq!(placed(64 * MIB, KERNEL, GAP, 1).unwrap(), 64 * MIB - 4096);
    assert_eq!(placed(64 * MIB, KERNEL, GAP, 4097).unwrap(), 64 * MIB - 8192);
    assert_eq!(placed(64 * MIB, KERNEL, GAP, 40 * MIB).unwrap(), 24 * MIB);
}

#[test]
fn it_is_below_what_the_kernel_can_reach() {
    assert_eq!(placed(64 * MIB, KERNEL, 32 * MIB, 4096).unwrap(), 32 * MIB - 4096);
    assert_eq!(placed(64 * MIB, KERNEL, 0x1ff_ffff + 1, 4096).unwrap(), 32 * MIB - 4096);
}

#[test]
fn it_is_below_the_gap_however_much_memory_there_is() {
    assert_eq!(placed(5 << 30, KERNEL, GAP, MIB).unwrap(), GAP - MIB);
}

#[test]
fn it_goes_below_the_kernel_when_there_is_more_room() {
    assert_eq!(placed(25 * MIB, KERNEL, GAP, 2 * MIB).unwrap(), 14 * MIB);
    assert_eq!(placed(25 * MIB, KERNEL, GAP, 15 * MIB).unwrap(), MIB);
}

#[test]
fn it_goes_between_segments() {
    let kernel = [(2 * MIB, 3 * MIB), (5 * MIB, 8 * MIB)];
    assert_eq!(placed(8 * MIB, &kernel, GAP, MIB).unwrap(), 4 * MIB);
    assert_eq!(placed(8 * MIB, &kernel, GAP, 2 * MIB).unwrap(), 3 * MIB);
}

#[test]
fn it_is_refused_when_it_fits_nowhere() {
    for (ram, limit, size) in [
        (64 * MIB, GAP, 40 * MIB + 1),
        (64 * MIB, GAP, u64::MAX),
        (24 * MIB, GAP, 15 * MIB + 1),
        (64 * MIB, 0, 1),
        (64 * MIB, MIB, 1),
    ] {
        let error = placed(ram, KERNEL, limit, size).unwrap_err().to_string();
        assert!(error.contains("give the guest more memory or a smaller initrd"), "{error}");
    }
    let error = placed(64 * MIB, KERNEL, GAP, 41 * MIB).unwrap_err();
    assert!(matches!(error, ImageError::NoRoom { largest, .. } if largest == 40 * MIB), "{error}");
}
