//! Buffers in guest memory, scattered as the driver likes: no device looks at descriptor boundaries (virtio 1.3,
//! 2.7.4).

use smallvec::SmallVec;
use vm_memory::bitmap::Bitmap;
use vm_memory::{Address, ByteValued, Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::ring_memory::{self, in_one_region};
use crate::GuestMemory;

/// One contiguous piece of guest memory, as a descriptor names it. It need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: GuestAddress,
    /// Length in bytes.
    pub len: u32,
}

/// A buffer that does not lie in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buffer of {len:#x} bytes at {address:#x} is outside of guest memory")]
pub struct OutsideMemory {
    /// Guest-physical address of the segment.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// Pieces of host memory as a system call takes them. Few are the rule, and need no allocation.
pub type Iovecs = SmallVec<[libc::iovec; 4]>;

/// Pieces of guest memory that together are one run of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments(SmallVec<[Segment; 4]>);

impl Segments {
    pub(super) fn push(&mut self, segment: Segment) {
        if segment.len > 0 {
            self.0.push(segment);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Length of the run in bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|segment| u64::from(segment.len)).sum()
    }

    /// Whether the run has no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of pieces.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The pieces, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.0.iter()
    }

    /// Takes up to `len` bytes off the front and returns them.
    #[must_use]
    pub fn take_front(&mut self, len: u64) -> Segments {
        let mut front = Segments::default();
        let mut missing = len;
        let mut whole = 0;
        for segment in &mut self.0 {
            if missing == 0 {
                break;
            }
            let part = u32::try_from(missing).unwrap_or(u32::MAX).min(segment.len);
            front.push(Segment { address: segment.address, len: part });
            missing -= u64::from(part);
            if part == segment.len {
                whole += 1;
            } else {
                // What runs past the last address stays there, outside of memory.
                let rest = segment.address.raw_value().saturating_add(u64::from(part));
                segment.address = GuestAddress(rest);
                segment.len -= part;
            }
        }
        self.0.drain(..whole);
        front
    }

    /// Takes `N` bytes off the front and reads them; none when the run is shorter, or they are not in guest memory.
    pub fn take_array<const N: usize>(&mut self, memory: &GuestMemory) -> Option<[u8; N]>
    where
        [u8; N]: ByteValued,
    {
        if let Some(first) = self.0.first().filter(|first| first.len as usize == N) {
            // The rule: a header has a descriptor of its own.
            let data = ring_memory::read(memory, first.address).ok()?;
            self.0.remove(0);
            return Some(data);
        }
        let front = self.take_front(N as u64);
        let mut data = [0; N];
        (front.len() == N as u64 && front.read(memory, &mut data).is_ok()).then_some(data)
    }

    /// Puts another run behind this one.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Takes the last byte off and returns its address; none when the run is empty or the byte has no address.
    pub fn take_last_byte(&mut self) -> Option<GuestAddress> {
        let last = self.0.last_mut()?;
        last.len -= 1;
        let address = last.address.checked_add(u64::from(last.len));
        if last.len == 0 {
            self.0.pop();
        }
        address
    }

    /// Fills `data` from the front of the run.
    ///
    /// # Errors
    /// When a segment is not in guest memory. The run must be at least as long as `data`.
    pub fn read(&self, memory: &GuestMemory, data: &mut [u8]) -> Result<(), OutsideMemory> {
        let mut rest = data;
        for segment in &self.0 {
            let (part, after) = rest.split_at_mut((segment.len as usize).min(rest.len()));
            match in_one_region(memory, segment.address, part.len()) {
                Some(slice) => {
                    slice.copy_to(part);
                }
                // It crosses from one region to the next, or leaves memory.
                None => memory.read_slice(part, segment.address).map_err(|_| segment.outside())?,
            }
            rest = after;
        }
        debug_assert!(rest.is_empty(), "the caller compared the lengths");
        Ok(())
    }

    /// Writes as much of `data` as fits to the front of the run, and says how many bytes that were.
    ///
    /// # Errors
    /// When a segment is not in guest memory.
    pub fn write(&self, memory: &GuestMemory, data: &[u8]) -> Result<usize, OutsideMemory> {
        let mut rest = data;
        for segment in &self.0 {
            let (part, after) = rest.split_at((segment.len as usize).min(rest.len()));
            match in_one_region(memory, segment.address, part.len()) {
                Some(slice) => slice.copy_from(part),
                None => memory.write_slice(part, segment.address).map_err(|_| segment.outside())?,
            }
            rest = after;
        }
        Ok(data.len() - rest.len())
    }

    /// The run as host memory, for a system call that scatters or gathers. It is valid for as long as `memory` is.
    ///
    /// # Errors
    /// When a segment is not in guest memory.
    pub fn iovecs(&self, memory: &GuestMemory, access: Permissions) -> Result<Iovecs, OutsideMemory> {
        let mut iovecs = Iovecs::new();
        for segment in &self.0 {
            segment.for_each_piece(memory, access, |piece| iovecs.push(piece))?;
        }
        Ok(iovecs)
    }

    /// The same as [`iovecs`](Self::iovecs) behind what is in `iovecs`, which is as it was when this fails.
    ///
    /// # Errors
    /// When a segment is not in guest memory.
    pub fn append_iovecs(
        &self,
        memory: &GuestMemory,
        access: Permissions,
        iovecs: &mut Vec<libc::iovec>,
    ) -> Result<(), OutsideMemory> {
        let before = iovecs.len();
        for segment in &self.0 {
            if let Err(error) = segment.for_each_piece(memory, access, |piece| iovecs.push(piece)) {
                iovecs.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Notes that the first `len` bytes of the run were written behind the back of `memory`.
    pub fn mark_dirty(&self, memory: &GuestMemory, len: u64) {
        let mut rest = len;
        for segment in &self.0 {
            let part = u64::from(segment.len).min(rest);
            rest -= part;
            if let Some(slice) = in_one_region(memory, segment.address, part as usize) {
                slice.bitmap().mark_dirty(0, slice.len());
                continue;
            }
            let Ok(slices) = memory.get_slices(segment.address, part as usize, Permissions::Write) else {
                continue;
            };
            for slice in slices.flatten() {
                slice.bitmap().mark_dirty(0, slice.len());
            }
        }
    }
}

impl FromIterator<Segment> for Segments {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Self(segments.into_iter().filter(|segment| segment.len > 0).collect())
    }
}

impl Segment {
    fn for_each_piece(
        &self,
        memory: &GuestMemory,
        access: Permissions,
        mut each: impl FnMut(libc::iovec),
    ) -> Result<(), OutsideMemory> {
        if let Some(slice) = in_one_region(memory, self.address, self.len as usize) {
            each(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() });
            return Ok(());
        }
        let outside = |_| self.outside();
        let slices = memory.get_slices(self.address, self.len as usize, access).map_err(outside)?;
        for slice in slices {
            let slice = slice.map_err(outside)?;
            each(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() });
        }
        Ok(())
    }

    fn outside(&self) -> OutsideMemory {
        OutsideMemory { address: self.address.raw_value(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::bitmap::AtomicBitmap;

    fn segments(parts: &[(u64, u32)]) -> Segments {
        parts.iter().map(|(address, len)| Segment { address: GuestAddress(*address), len: *len }).collect()
    }

    fn memory() -> GuestMemory {
        crate::virtio::queue_harness::guest_memory(&[(0, 0x1000), (0x1000, 0x1000)])
    }

    #[test]
    fn the_front_comes_off_whatever_the_boundaries() {
        let mut run = segments(&[(0x100, 4), (0x200, 4), (0x300, 4)]);
        assert_eq!(run.take_front(6), segments(&[(0x100, 4), (0x200, 2)]));
        assert_eq!(run, segments(&[(0x202, 2), (0x300, 4)]));
        assert_eq!(run.take_front(100).len(), 6);
        assert!(run.is_empty());
        let mut high = segments(&[(u64::MAX, 100), (0, 1)]);
        assert_eq!(high.take_front(16).len(), 16);
        assert_eq!(high, segments(&[(u64::MAX, 84), (0, 1)]), "it does not come round to address 0");
    }

    #[test]
    fn the_last_byte_comes_off_and_need_not_exist() {
        let mut run = segments(&[(0x100, 1), (0x200, 2)]);
        assert_eq!(run.take_last_byte(), Some(GuestAddress(0x201)));
        assert_eq!(run.take_last_byte(), Some(GuestAddress(0x200)));
        assert_eq!(run.take_last_byte(), Some(GuestAddress(0x100)));
        assert_eq!(run.take_last_byte(), None);
        assert_eq!(segments(&[(u64::MAX, 2)]).take_last_byte(), None);
    }

    #[test]
    fn data_crosses_segments_and_regions() {
        let (run, memory) = (segments(&[(0xffe, 4), (0x10, 2)]), memory());
        assert_eq!(run.write(&memory, b"abcdefgh").unwrap(), 6);
        let mut data = [0; 6];
        run.read(&memory, &mut data).unwrap();
        assert_eq!(&data, b"abcdef");
        let lens: Vec<_> =
            run.iovecs(&memory, Permissions::Read).unwrap().iter().map(|iovec| iovec.iov_len).collect();
        assert_eq!(lens, [2, 2, 2], "split where the host mapping is");
    }

    #[test]
    fn what_is_outside_of_memory_is_named() {
        let (run, memory) = (segments(&[(0x10, 4), (0x1ffe, 4)]), memory());
        let outside = OutsideMemory { address: 0x1ffe, len: 4 };
        assert_eq!(run.iovecs(&memory, Permissions::Write).unwrap_err(), outside);
        assert_eq!(run.write(&memory, &[0; 8]).unwrap_err(), outside);
        assert_eq!(run.read(&memory, &mut [0; 8]).unwrap_err(), outside);
        run.mark_dirty(&memory, 8);
    }

    #[test]
    fn writes_behind_the_back_of_the_memory_are_marked() {
        let bitmap = Some(AtomicBitmap::new(0x4000, std::num::NonZeroUsize::new(0x1000).unwrap()));
        let mapping = vm_memory::mmap::MmapRegionBuilder::new_with_bitmap(0x4000, bitmap)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .build()
            .unwrap();
        let region = vm_memory::GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
        let memory = GuestMemory::from_regions(vec![region]).unwrap();
        segments(&[(0x1000, 0x10), (0x3000, 0x10)]).mark_dirty(&memory, 0x10);
        let dirty = |address| {
            let slices = memory.get_slices(GuestAddress(address), 1, Permissions::Read).unwrap();
            slices.flatten().next().unwrap().bitmap().dirty_at(0)
        };
        assert_eq!([dirty(0), dirty(0x1000), dirty(0x3000)], [false, true, false]);
    }
}
