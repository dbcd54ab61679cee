use super::*;
use crate::virtio::queue_harness::guest_memory;
use vm_memory::bitmap::AtomicBitmap;
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
    let discarded = discard(&memory, &(0x800..0x3800), &mut Replaced::default());
    assert_eq!((discarded.bytes, discarded.outside), (0x2000, 0));
    assert!(discarded.refused.is_none());
    let bytes = [0, 0xfff, 0x1000, 0x2fff, 0x3000, 0x3fff].map(|address| byte(&memory, address));
    assert_eq!(bytes, [0xaa, 0xaa, 0, 0, 0xaa, 0xaa]);
}

#[test]
fn what_is_outside_of_memory_is_left_alone() {
    let memory = filled(guest_memory(&[(0, 0x2000), (0x8000, 0x1000)]), 0x2000);
    let discarded = discard(&memory, &(0x1000..0x9000), &mut Replaced::default());
    assert_eq!((discarded.bytes, discarded.outside), (0x2000, 0x6000));
    assert_eq!([byte(&memory, 0xfff), byte(&memory, 0x1000)], [0xaa, 0]);
    for range in [0x2000..0x8000, 0x9000..u64::MAX, u64::MAX - 1..u64::MAX] {
        let discarded = discard(&memory, &range, &mut Replaced::default());
        assert_eq!((discarded.bytes, discarded.outside), (0, range.end - range.start));
    }
}

const BLOCK: u64 = 0x1_0000;
const LEN: u64 = 8 * BLOCK;

/// A file of 0x55 mapped with `flags`, and 0xaa written to the mapping; with a dirty bitmap that is clear.
fn of_file(flags: libc::c_int) -> (GuestMemory, std::fs::File) {
    use std::os::unix::fs::FileExt;
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.write_all_at(&vec![0x55; LEN as usize], 0).unwrap();
    let bitmap = AtomicBitmap::new(LEN as usize, std::num::NonZeroUsize::new(0x1000).unwrap());
    let mapping = MmapRegionBuilder::new_with_bitmap(LEN as usize, Some(bitmap))
        .with_file_offset(FileOffset::new(file.try_clone().unwrap(), 0))
        .with_mmap_flags(flags)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .build()
        .unwrap();
    let region = GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
    let memory = filled(GuestMemory::from_regions(vec![region]).unwrap(), LEN as usize);
    memory.iter().for_each(|region| (**region).bitmap().as_ref().unwrap().reset());
    (memory, file)
}

#[test]
fn a_file_behind_shared_memory_gets_a_hole() {
    use std::os::unix::fs::MetadataExt;
    let (memory, file) = of_file(libc::MAP_SHARED);
    assert_eq!(file.metadata().unwrap().blocks() * 512, LEN);
    assert_eq!(discard(&memory, &(0x1000..0x3000), &mut Replaced::default()).bytes, 0x2000);
    assert_eq!(file.metadata().unwrap().blocks() * 512, LEN - 0x2000);
    assert_eq!([byte(&memory, 0xfff), byte(&memory, 0x1000)], [0xaa, 0]);
}

/// The pages that the dirty bitmap names.
fn dirty(memory: &GuestMemory) -> Vec<u64> {
    let region = memory.iter().next().unwrap();
    (0..LEN / PAGE_SIZE).filter(|page| region.bitmap().dirty_at((page * PAGE_SIZE) as usize)).collect()
}

/// Mappings of this process that lie in the memory, as the host sees them.
fn mappings(memory: &GuestMemory) -> usize {
    let region = memory.iter().next().unwrap();
    let start = region.as_ptr() as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let starts = maps.lines().map(|line| u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap());
    starts.filter(|address| (start..start + region.len()).contains(address)).count()
}

#[test]
fn private_memory_of_a_file_turns_to_zero_in_whole_blocks_and_does_not_show_the_file_again() {
    let (memory, file) = of_file(libc::MAP_PRIVATE);
    let mut replaced = Replaced::default();
    // The last page of the first block, two blocks, and the first page of the fourth.
    let range = BLOCK - 0x1000..3 * BLOCK + 0x1000;
    let discarded = discard(&memory, &range, &mut replaced);
    assert_eq!((discarded.bytes, discarded.outside), (2 * BLOCK, 0));
    assert_eq!(discarded.refused.unwrap().kind(), io::ErrorKind::Unsupported);
    let bytes =
        [0, BLOCK - 1, BLOCK, 3 * BLOCK - 1, 3 * BLOCK, LEN - 1].map(|address| byte(&memory, address));
    assert_eq!(bytes, [0xaa, 0xaa, 0, 0, 0xaa, 0xaa], "never 0x55");
    let mut kept = [0; 1];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut kept, BLOCK).unwrap();
    assert_eq!(kept, [0x55], "the file is as it was");
}

#[test]
fn a_block_that_was_replaced_is_dropped_page_by_page_from_then_on() {
    let (memory, _file) = of_file(libc::MAP_PRIVATE);
    let mut replaced = Replaced::default();
    assert_eq!(discard(&memory, &(BLOCK..2 * BLOCK), &mut replaced).bytes, BLOCK);
    let memory = filled(memory, LEN as usize);
    let discarded = discard(&memory, &(BLOCK + 0x3000..BLOCK + 0x4000), &mut replaced);
    assert_eq!(discarded.bytes, 0x1000);
    assert!(discarded.refused.is_none());
    let bytes = [BLOCK, BLOCK + 0x3000, BLOCK + 0x4000].map(|address| byte(&memory, address));
    assert_eq!(bytes, [0xaa, 0, 0xaa]);
}

#[test]
fn every_page_that_turns_to_zero_is_dirty_whatever_is_behind_it() {
    for flags in [libc::MAP_PRIVATE, libc::MAP_SHARED] {
        let (memory, _file) = of_file(flags);
        assert!(dirty(&memory).is_empty());
        discard(&memory, &(BLOCK..2 * BLOCK), &mut Replaced::default());
        assert_eq!(dirty(&memory), (16..32).collect::<Vec<_>>());
    }
    let bitmap = AtomicBitmap::new(LEN as usize, std::num::NonZeroUsize::new(0x1000).unwrap());
    let mapping = MmapRegionBuilder::new_with_bitmap(LEN as usize, Some(bitmap))
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .build()
        .unwrap();
    let region = GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
    let memory = GuestMemory::from_regions(vec![region]).unwrap();
    discard(&memory, &(0x2800..0x5000), &mut Replaced::default());
    assert_eq!(dirty(&memory), [3, 4]);
}

#[test]
fn a_guest_that_gives_up_every_other_block_over_and_over_makes_few_mappings() {
    let (memory, _file) = of_file(libc::MAP_PRIVATE);
    let mut replaced = Replaced::default();
    for _ in 0..100 {
        for block in (0..8).step_by(2) {
            discard(&memory, &(block * BLOCK..(block + 1) * BLOCK), &mut replaced);
        }
    }
    assert!(mappings(&memory) <= 8, "{}", mappings(&memory));
    while replaced.spend() {}
    let discarded = discard(&memory, &(BLOCK..2 * BLOCK), &mut replaced);
    assert_eq!(discarded.refused.unwrap().kind(), io::ErrorKind::Unsupported);
    assert_eq!(byte(&memory, BLOCK), 0xaa, "it stays with the guest");
    assert_eq!(discard(&memory, &(0..BLOCK), &mut replaced).bytes, BLOCK, "no new mapping is needed");
}
