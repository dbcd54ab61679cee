//! Having the pages at hand that a guest is about to use.
//!
//! A page that a guest writes costs it up to three faults when it comes from a file: one to read it, one that finds it
//! read-only, and one for the copy. Here it is one, in the host's kernel, without an exit.
#![expect(unsafe_code, reason = "madvise(2) and mincore(2) have no safe wrapper")]

use std::ops::Range;

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion};

/// Bytes of pages that are copied ahead: who asks for more, by whatever file, has the guest wait for it.
const MOST_COPIED: u64 = 64 << 20;

/// Pages that a guest used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Their offsets in guest memory, as in the memory file of a snapshot: whole pages.
    pub range: Range<u64>,
    /// It wrote to each of them.
    pub written: bool,
}

impl Used {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

/// Makes copies of the pages of `memory` that are going to be written, and has the host begin to read the others from the
/// disk. Offsets outside of memory are left out, and so is what is more than all of memory, or more copies than 64 MiB. What the
/// host cannot do (before Linux 5.14 it makes no copies), the guest's own faults do later.
pub fn prefetch(memory: &GuestMemory, used: &[Used]) {
    let all = memory.iter().map(GuestMemoryRegion::len).sum();
    // To ask for what is there already would take as long as some pages of it are worth.
    let mut read = used.iter().filter(|used| !used.written);
    let is_read =
        [read.next(), read.next_back()].into_iter().flatten().all(|used| is_in_ram(memory, used.range.start));
    if !is_read {
        advise_all(memory, used.iter().filter(|used| !used.written), all, libc::MADV_WILLNEED);
    }
    advise_all(memory, used.iter().filter(|used| used.written), MOST_COPIED, libc::MADV_POPULATE_WRITE);
}

/// Whether the host need not read the page at `offset` from a disk; for a file that is another user's it says so anyway.
fn is_in_ram(memory: &GuestMemory, offset: u64) -> bool {
    let mut is_in_ram = 0;
    each_part(memory, &(offset..offset.saturating_add(1)), |address, _| {
        // SAFETY: the page is mapped, and there is room for the one byte that is said of it.
        unsafe { libc::mincore(address, 1, &raw mut is_in_ram) };
    });
    is_in_ram & 1 != 0
}

/// Advises the host of `used`, as long as they are not `most` bytes together.
fn advise_all<'a>(
    memory: &GuestMemory,
    used: impl Iterator<Item = &'a Used>,
    most: u64,
    advice: libc::c_int,
) {
    let mut left = most;
    for used in used {
        let Some(less) = left.checked_sub(used.len()) else { continue };
        left = less;
        each_part(memory, &used.range, |address, len| {
            // SAFETY: the range is mapped, and `memory` keeps it so; its content stays as it is.
            unsafe { libc::madvise(address, len, advice) };
        });
    }
}

/// Calls `take` with the address and length of each part of memory that has offsets of `range`.
fn each_part(memory: &GuestMemory, range: &Range<u64>, mut take: impl FnMut(*mut libc::c_void, usize)) {
    let mut first = 0;
    for region in memory.iter() {
        let last = first + region.len();
        let (start, end) = (range.start.max(first), range.end.min(last));
        if start < end {
            // SAFETY: the offset is within the region, which is one range of addresses.
            let address = unsafe { region.as_ptr().add((start - first) as usize) };
            take(address.cast(), (end - start) as usize);
        }
        first = last;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::memory::{HugePages, MIB, Source, restore};
    use crate::snapshot::working_set;

    fn mapped() -> GuestMemory {
        let file: File = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 2 << 20], MIB).unwrap();
        file.set_len(8 * MIB).unwrap();
        restore(8, &Source { base: Arc::new(file), overlays: Vec::new() }, HugePages::None, false).unwrap()
    }

    fn written(range: Range<u64>) -> Used {
        Used { range, written: true }
    }

    #[test]
    fn pages_that_will_be_written_are_the_guests_own_before_it_writes() {
        let memory = mapped();
        // Of the file and of a hole; across the end of memory, and outside of it.
        let wanted = [MIB..MIB + 0x3000, 5 * MIB..5 * MIB + 0x1000, 8 * MIB - 0x1000..9 * MIB];
        let outside = written(u64::MAX - 0xfff..u64::MAX);
        prefetch(&memory, &wanted.clone().map(written).into_iter().chain([outside]).collect::<Vec<_>>());
        let found = working_set::of(&memory).unwrap();
        // In holes a huge page may be more than was asked for.
        assert_eq!(found[0], written(wanted[0].clone()));
        for Range { start, end } in wanted {
            let has =
                |used: &Used| used.written && used.range.start <= start && end.min(8 * MIB) <= used.range.end;
            assert!(found.iter().any(has), "{start:x}: {found:x?}");
        }
        assert!(!found.iter().any(|used| used.range.contains(&(2 * MIB))), "{found:x?}");
    }

    #[test]
    fn pages_that_will_be_read_come_from_the_disk_before_they_are_asked_for() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        file.sync_all().unwrap();
        // SAFETY: the kernel forgets pages of the file that are on the disk.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let source = Source { base: Arc::new(file), overlays: Vec::new() };
        let memory = restore(4, &source, HugePages::None, false).unwrap();
        if is_in_ram(&memory, 0) {
            eprintln!("SKIPPED: the temporary folder is on no disk");
            return;
        }
        prefetch(&memory, &[Used { range: MIB..2 * MIB, written: false }]);
        let since = Instant::now();
        while !(MIB..2 * MIB).step_by(4096).all(|offset| is_in_ram(&memory, offset)) {
            assert!(since.elapsed() < Duration::from_secs(20), "nobody read them");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!is_in_ram(&memory, 3 * MIB), "nobody asked for that");
    }

    #[test]
    fn no_list_has_more_pages_copied_than_the_most() {
        let memory = crate::memory::create(80, HugePages::None, false).unwrap();
        prefetch(&memory, &[written(0..64 * MIB - 0x1000), written(64 * MIB..80 * MIB), written(0..0x2000)]);
        prefetch(&memory, &vec![Used { range: 0..80 * MIB, written: false }; 1000]);
        let found = working_set::of(&memory).unwrap();
        assert!(found.iter().all(|used| used.range.end <= 64 * MIB), "{found:?}");
    }
}
