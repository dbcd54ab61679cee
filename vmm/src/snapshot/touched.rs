//! Which pages of guest memory may have something in them.

use std::io;

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::pagemap::{self, ZERO};
use super::pages::Pages;
use crate::memory::data_extents;

/// The pages of `memory`, as offsets in a memory file, that are not zeroes for sure: what the guest or rvmm touched, and
/// where the file that it is mapped from has data. Not for memory whose pages come by userfaultfd: what nobody asked for
/// yet is not among them.
///
/// # Errors
/// What the host said.
pub fn touched(memory: &GuestMemory) -> io::Result<Pages> {
    let mut used = Pages::default();
    let mut in_files = Vec::new();
    let mut first = 0;
    for region in memory.iter() {
        let start = region.as_ptr().addr() as u64;
        pagemap::each(start..start + region.len(), &mut |range, page| {
            if page & ZERO == 0 {
                used.push(first + (range.start - start)..first + (range.end - start));
            }
        })?;
        if let Some(backing) = region.file_offset() {
            let from = |offset: u64| first + offset.saturating_sub(backing.start());
            let data = data_extents(backing.file(), backing.start() + region.len()).into_iter();
            in_files.extend(data.map(|data| from(data.start)..from(data.end)));
        }
        first += region.len();
    }
    Ok(if in_files.is_empty() { used } else { used.union(&Pages::of(in_files)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{self, HugePages, Source};
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;
    use vm_memory::{Bytes as _, GuestAddress};

    const MIB: u64 = 1 << 20;

    fn write(memory: &GuestMemory, address: u64) {
        memory.write_obj(1u8, GuestAddress(address)).unwrap();
    }

    #[test]
    fn what_was_written_is_touched_on_both_sides_of_the_gap() {
        let memory = memory::create(3 * 1024 + 4, HugePages::None, false).unwrap();
        let before = touched(&memory).unwrap();
        write(&memory, 0x5000);
        write(&memory, (4096 + 2) * MIB + 0x123);
        let pages = touched(&memory).unwrap();
        assert!(before.is_empty(), "{before:?}");
        let has = |offset| pages.ranges().iter().any(|range| range.contains(&offset));
        assert!(has(0x5000) && has((3072 + 2) * MIB), "{pages:?}");
        // A transparent huge page may be more than was written.
        assert!(pages.bytes() <= 2 * 2 * MIB, "{pages:?}");
    }

    #[test]
    fn of_a_mapped_file_what_has_data_is_touched_and_what_was_written_since() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[1; 8192], MIB).unwrap();
        let source = Source { base: Arc::new(file), overlays: Vec::new() };
        let memory = memory::restore(8, &source, HugePages::None, false).unwrap();
        assert!(memory.read_obj::<u8>(GuestAddress(MIB)).unwrap() == 1);
        let in_file = touched(&memory).unwrap();
        assert!(in_file.without(&Pages::of(vec![MIB - 65536..MIB + 65536, 0..0])).is_empty(), "{in_file:?}");
        assert!(in_file.bytes() >= 8192);
        write(&memory, MIB + 4096);
        write(&memory, 5 * MIB);
        let now = touched(&memory).unwrap();
        for offset in [MIB, MIB + 4096, 5 * MIB] {
            assert!(now.ranges().iter().any(|range| range.contains(&offset)), "{now:?}");
        }
    }
}
