//! Direct I/O: data goes between disk and guest without the host's page cache, which asks buffers, lengths and offsets to be
//! aligned.
//!
//! The guest's blocks have 512 bytes all the same: a partition table counts in blocks, so a caching option must not change their
//! size. Buffers that do not fit (Linux aligns them to 512 bytes) go through a buffer of ours, and parts of a block, which are
//! rare, through the page cache, which the kernel keeps coherent with direct I/O.
#![expect(unsafe_code, reason = "statx(2) and ioctl(2)")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Smallest block, whatever the file system says: a sector (virtio 1.3, 5.2.4).
const MIN_BLOCK_SIZE: u32 = 512;
/// What a file system that does not say, one before Linux 6.1, will hardly ask more than.
const USUAL_BLOCK_SIZE: u32 = 4096;
/// Logical block size of a block device: `_IO(0x12, 104)` of linux/fs.h.
const BLKSSZGET: libc::c_ulong = 0x1268;

/// What direct I/O wants. Both are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Of the address of each buffer.
    pub memory: u32,
    /// Of offsets and of the length of each buffer, in bytes.
    pub block: u32,
}

impl Alignment {
    /// What direct I/O on `file` wants; none when its file system has no direct I/O.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn of(file: &File, is_block_device: bool) -> io::Result<Option<Self>> {
        // SAFETY: all zeros is a valid `statx`, a struct of integers.
        let mut status: libc::statx = unsafe { std::mem::zeroed() };
        // SAFETY: the path is an empty string that lives for ever, and `status` a valid place for one `statx`.
        let result = unsafe {
            libc::statx(
                file.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                libc::STATX_DIOALIGN,
                &raw mut status,
            )
        };
        if result == 0 && status.stx_mask & libc::STATX_DIOALIGN != 0 {
            let (memory, block) = (status.stx_dio_mem_align, status.stx_dio_offset_align);
            return Ok((memory > 0 && block > 0).then(|| Self::new(memory, block)));
        }
        let block = if is_block_device { logical_block_size(file)? } else { USUAL_BLOCK_SIZE };
        Ok(Some(Self::new(block, block)))
    }

    fn new(memory: u32, block: u32) -> Self {
        let power = |bytes: u32| bytes.min(1 << 30).next_power_of_two();
        Self { memory: power(memory), block: power(block).max(MIN_BLOCK_SIZE) }
    }

    /// Whether `len` bytes at `offset` of the disk are whole blocks.
    pub(super) fn is_whole_blocks(self, offset: u64, len: u64) -> bool {
        (offset | len).is_multiple_of(self.block.into())
    }

    /// Whether `iovecs` can be handed to the host as they are.
    pub(super) fn fits(self, iovecs: &[libc::iovec]) -> bool {
        iovecs.iter().all(|iovec| {
            (iovec.iov_base as usize).is_multiple_of(self.memory as usize)
                && iovec.iov_len.is_multiple_of(self.block as usize)
        })
    }
}

fn logical_block_size(device: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int, which `size` holds for the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKSSZGET, &raw mut size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(u32::try_from(size).unwrap_or(USUAL_BLOCK_SIZE)),
    }
}

/// Memory that direct I/O takes, for data whose own buffers it does not.
pub(super) struct Bounce {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Bounce {
    /// Most bytes that one has: what is longer is moved in parts.
    pub(super) const MAX_LEN: u64 = 256 << 10;

    /// A buffer for `len` bytes, or a part of them.
    pub(super) fn new(len: u64, alignment: Alignment) -> Self {
        let align = alignment.memory.max(alignment.block) as usize;
        let len = len.min(Self::MAX_LEN) as usize;
        let memory = vec![0; len + align];
        let start = memory.as_ptr().align_offset(align).min(align);
        Self { memory, start, len }
    }

    /// Its first `len` bytes, or all when it has less.
    pub(super) fn front(&mut self, len: u64) -> &mut [u8] {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.len);
        self.memory.get_mut(self.start..self.start + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aligned_buffers_fit() {
        let alignment = Alignment::new(512, 4096);
        let iovec = |base: usize, len| libc::iovec { iov_base: base as *mut _, iov_len: len };
        assert!(alignment.fits(&[iovec(0x1200, 4096), iovec(0x4000, 8192)]));
        assert!(!alignment.fits(&[iovec(0x1200, 4096), iovec(0x4100, 4096)]));
        assert!(!alignment.fits(&[iovec(0x1200, 512)]));
    }

    #[test]
    fn parts_of_blocks_are_told_from_whole_ones() {
        let alignment = Alignment::new(512, 4096);
        assert!(alignment.is_whole_blocks(0, 4096) && alignment.is_whole_blocks(8192, 12288));
        assert!(!alignment.is_whole_blocks(512, 4096) && !alignment.is_whole_blocks(4096, 512));
    }

    #[test]
    fn a_bounce_buffer_is_aligned_and_bounded() {
        for block in [512, 4096] {
            let mut bounce = Bounce::new(1 << 30, Alignment::new(4, block));
            assert_eq!(bounce.front(u64::MAX).len() as u64, Bounce::MAX_LEN);
            assert!((bounce.front(1).as_ptr() as usize).is_multiple_of(block as usize));
        }
    }
}
