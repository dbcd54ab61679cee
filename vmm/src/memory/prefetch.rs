//! Having the pages at hand that a guest is about to use.
//!
//! A page that a guest writes costs it up to three faults when it comes from a file: one to read it, one that finds it
//! read-only, and one for the copy. Here it is one, in the host's kernel, without an exit.
#![expect(unsafe_code, reason = "madvise(2) and mincore(2) have no safe wrapper")]

use std::ops::Range;
use std::time::{Duration, Instant};

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion};

use crate::thread::{self, ThreadKind};

/// Bytes of pages that are copied ahead: who asks for more, by whatever file, has each VM take that much.
const MOST_COPIED: u64 = 64 << 20;

/// How long a guest waits for its copies; what is left then is made beside it.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bytes that the host is asked for at once: of more it reads no more than its readahead, which is this much as a rule.
const PIECE: u64 = 128 << 10;

/// Pages that a guest used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Their offsets in guest memory, as in the memory file of a snapshot: whole pages.
    pub range: Range<u64>,
    /// It wrote to each of them.
    pub written: bool,
}

impl Used {
    /// Bytes of these pages.
    pub fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What of `all` comes first, up to `most` bytes together.
    pub fn first(all: impl IntoIterator<Item = Self>, most: u64) -> Vec<Self> {
        let mut left = most;
        // It ends with what is wanted: a hostile list has millions of parts behind that.
        let cut = |mut used: Self| {
            used.range.end = used.range.end.min(used.range.start.saturating_add(left));
            let wanted = (left > 0).then_some(used)?;
            left = left.saturating_sub(wanted.len());
            Some(wanted)
        };
        all.into_iter().map_while(cut).filter(|used| !used.is_empty()).collect()
    }
}

/// Makes copies of the pages of `memory` that are going to be written, up to 64 MiB; all but those at the offsets `holes`, in ascending
/// order, of which a copy is soon made. Where pages have to come from a disk first, or it takes longer than 50 ms, a thread of its
/// own has what is left of `used` read, and makes the copies then: nobody waits. What the host cannot do (before Linux 5.14 it makes no
/// copies), the guest's own faults do later.
pub(super) fn prefetch(memory: &GuestMemory, used: &[Used], holes: &[Range<u64>]) {
    if used.is_empty() {
        return;
    }
    let all = memory.iter().map(GuestMemoryRegion::len).sum();
    let mut used = Used::first(outside(used, holes), all);
    if is_in_ram(memory, &used) {
        used = copy(memory, &used, Instant::now().checked_add(PATIENCE));
        if used.is_empty() {
            return;
        }
    }
    let memory = memory.clone();
    let read = move || {
        used.iter().flat_map(pieces).for_each(|piece| advise(&memory, &piece, libc::MADV_WILLNEED));
        copy(&memory, &used, None);
    };
    if let Err(error) = thread::spawn(ThreadKind::Prefetch, read) {
        log::debug!("cannot start a thread that reads memory ahead: {error}");
    }
}

/// The parts of `used` that do not lie in `holes`, which are in ascending order.
fn outside<'a>(used: &'a [Used], holes: &'a [Range<u64>]) -> impl Iterator<Item = Used> + 'a {
    used.iter().flat_map(move |Used { range, written }| {
        let next = holes.partition_point(|hole| hole.end <= range.start);
        let within = holes.iter().skip(next).take_while(|hole| hole.start < range.end);
        let ends = within.clone().map(|hole| hole.start).chain([range.end]);
        let starts = std::iter::once(range.start).chain(within.map(|hole| hole.end));
        starts.zip(ends).map(|(start, end)| Used { range: start..end, written: *written })
    })
}

/// Whether the host need not read `used` from a disk, by the first and the last of it; of a file that is another user's it says so
/// anyway.
fn is_in_ram(memory: &GuestMemory, used: &[Used]) -> bool {
    // Of what was read the file has something, which may be a hole in what was written.
    let mut samples = used.iter().filter(|used| !used.written);
    let samples = [samples.next().or(used.first()), samples.next_back()];
    samples.into_iter().flatten().all(|used| {
        let mut is_in_ram = 1;
        each_part(memory, &(used.range.start..used.range.start.saturating_add(1)), |address, _| {
            // SAFETY: the page is mapped, and there is room for the one byte that is said of it.
            unsafe { libc::mincore(address, 1, &raw mut is_in_ram) };
        });
        is_in_ram & 1 != 0
    })
}

/// Makes copies of what was written, until `deadline`. Returns what it has not come to.
fn copy(memory: &GuestMemory, used: &[Used], deadline: Option<Instant>) -> Vec<Used> {
    let written = Used::first(used.iter().filter(|used| used.written).cloned(), MOST_COPIED);
    let mut all = written.iter().flat_map(pieces);
    for range in all.by_ref() {
        advise(memory, &range, libc::MADV_POPULATE_WRITE);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
    }
    all.map(|range| Used { range, written: true }).collect()
}

/// The pages of `used`, up to [`PIECE`] bytes at a time.
fn pieces(used: &Used) -> impl Iterator<Item = Range<u64>> + use<> {
    let Range { start, end } = used.range;
    (start..end).step_by(PIECE as usize).map(move |start| start..end.min(start.saturating_add(PIECE)))
}

fn advise(memory: &GuestMemory, range: &Range<u64>, advice: libc::c_int) {
    each_part(memory, range, |address, len| {
        // SAFETY: the range is mapped, and `memory` keeps it so; its content stays as it is.
        unsafe { libc::madvise(address, len, advice) };
    });
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

    use skip::Capability;

    use super::*;
    use crate::memory::{HugePages, MIB, Source, restore};

    fn mapped() -> GuestMemory {
        let file: File = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 2 << 20], MIB).unwrap();
        file.set_len(8 * MIB).unwrap();
        restore(8, &Source { base: Arc::new(file), overlays: Vec::new() }, HugePages::None, false).unwrap()
    }

    fn written(range: Range<u64>) -> Used {
        Used { range, written: true }
    }

    fn read(range: Range<u64>) -> Used {
        Used { range, written: false }
    }

    /// The pages that are copies of this process's own (`Documentation/admin-guide/mm/pagemap.rst`).
    fn found(memory: &GuestMemory) -> Vec<Used> {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let region = memory.iter().next().unwrap();
        let mut entries = vec![0; region.len() as usize / 4096 * 8];
        pagemap.read_exact_at(&mut entries, region.as_ptr().addr() as u64 / 4096 * 8).unwrap();
        let entries = entries.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry));
        let (present, of_a_file) = (1 << 63, 1 << 61);
        let own = entries.zip(0..).filter(|(bits, _)| bits & (present | of_a_file) == present);
        let mut found: Vec<Used> = Vec::new();
        for start in own.map(|(_, page)| page * 4096_u64) {
            match found.last_mut() {
                Some(last) if last.range.end == start => last.range.end += 4096,
                _ => found.push(written(start..start + 4096)),
            }
        }
        found
    }

    #[test]
    fn pages_that_will_be_written_are_the_guests_own_before_it_writes() {
        let memory = mapped();
        let wanted = [written(MIB..MIB + 0x3000), written(2 * MIB..2 * MIB + 0x1000)];
        let outside = [written(3 * MIB - 0x1000..9 * MIB), written(u64::MAX - 0xfff..u64::MAX)];
        prefetch(&memory, &[&wanted[..], &outside].concat(), &[0..MIB, 3 * MIB..8 * MIB]);
        let last = written(3 * MIB - 0x1000..3 * MIB);
        assert_eq!(found(&memory), [&wanted[..], &[last]].concat());
    }

    #[test]
    fn pages_come_from_the_disk_before_they_are_asked_for() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        file.sync_all().unwrap();
        // SAFETY: the kernel forgets pages of the file that are on the disk.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let source = Source { base: Arc::new(file), overlays: Vec::new() };
        let used = [read(MIB..2 * MIB), written(2 * MIB..2 * MIB + 0x2000)];
        let at = |start: u64| [read(start..start + 0x1000)];
        let memory = restore(4, &source, HugePages::None, false).unwrap();
        if is_in_ram(&memory, &at(MIB)) {
            return skip::skip(Capability::Disk, "the temporary folder is on no disk");
        }
        prefetch(&memory, &used, &[]);
        let since = Instant::now();
        let is_done = || {
            (MIB..2 * MIB).step_by(4096).all(|start| is_in_ram(&memory, &at(start)))
                && found(&memory).contains(&used[1])
        };
        while !is_done() {
            assert!(since.elapsed() < Duration::from_secs(20), "nobody read them");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!is_in_ram(&memory, &at(4 * MIB - 0x1000)), "nobody asked for that");
    }

    #[test]
    fn no_list_has_more_pages_copied_than_the_most() {
        let memory = crate::memory::create(80, HugePages::None, false).unwrap();
        let half = MOST_COPIED / 2;
        assert_eq!(
            copy(
                &memory,
                &[read(0..80 * MIB), written(0..half), written(0..half - 0x1000), written(half..80 * MIB)],
                None
            ),
            []
        );
        let found = found(&memory);
        assert!(found.iter().all(|used| used.range.end <= half + 2 * MIB), "{found:x?}");
        assert!(found.iter().any(|used| used.range.end > half), "{found:x?}");
    }

    #[test]
    fn what_takes_too_long_is_left_for_later() {
        let memory = mapped();
        let used = [read(0..MIB), written(MIB..MIB + 2 * PIECE), written(2 * MIB..2 * MIB + 0x1000)];
        let left = copy(&memory, &used, Some(Instant::now()));
        assert_eq!(found(&memory), [written(MIB..MIB + PIECE)]);
        assert_eq!(left, [written(MIB + PIECE..MIB + 2 * PIECE), used[2].clone()]);
    }

    #[test]
    fn holes_are_left_out_wherever_they_are() {
        let holes = [0x1000..0x2000, 0x4000..0x6000, 0x8000..0x9000];
        for (used, left) in [
            (0..0xa000, &[(0, 0x1000), (0x2000, 0x4000), (0x6000, 0x8000), (0x9000, 0xa000)][..]),
            (0x4000..0x6000, &[]),
            (0x5000..0x7000, &[(0x6000, 0x7000)]),
            (0x2000..0x4000, &[(0x2000, 0x4000)]),
            (0x9000..0xa000, &[(0x9000, 0xa000)]),
        ] {
            let found = Used::first(outside(&[written(used)], &holes), u64::MAX);
            assert_eq!(found, left.iter().map(|(start, end)| written(*start..*end)).collect::<Vec<_>>());
        }
    }
}
