//! Buffers in guest memory as system calls take them.
#![expect(unsafe_code, reason = "readv(2), writev(2) and copies to and from guest memory")]

use std::io;
use std::os::fd::RawFd;

use vm_memory::Permissions;

use crate::GuestMemory;
use crate::virtio::segments::{OutsideMemory, Segments};

/// Pieces that one system call takes beside those of the caller (IOV_MAX is 1024).
pub(super) const MAX_PIECES: usize = 1000;

/// Pieces of guest memory that together are one run of bytes, in the host's addresses. Pieces come in at the back and go
/// at the front.
pub(super) struct IoVecs {
    pieces: Vec<libc::iovec>,
    /// Pieces at the front that have gone.
    start: usize,
    bytes: usize,
    /// What one system call gets.
    call: Vec<libc::iovec>,
    /// Keeps what `pieces` point to.
    memory: GuestMemory,
}

// SAFETY: the addresses are those of `memory`, which belongs to no thread.
unsafe impl Send for IoVecs {}

impl IoVecs {
    pub(super) fn new(memory: GuestMemory) -> Self {
        Self { pieces: Vec::new(), start: 0, bytes: 0, call: Vec::new(), memory }
    }

    /// Length of the run in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of pieces.
    pub(super) fn count(&self) -> usize {
        self.pieces.len() - self.start
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.start = 0;
        self.bytes = 0;
    }

    /// Adds `segments` at the back and says how many pieces and bytes that were. On an error nothing is added.
    pub(super) fn push(
        &mut self,
        segments: &Segments,
        access: Permissions,
    ) -> Result<(usize, usize), OutsideMemory> {
        let before = self.pieces.len();
        segments.append_iovecs(&self.memory, access, &mut self.pieces)?;
        let bytes = total(self.pieces.get(before..).unwrap_or_default());
        self.bytes += bytes;
        Ok((self.pieces.len() - before, bytes))
    }

    /// Takes the last `count` pieces of `bytes` off again.
    pub(super) fn pop_back(&mut self, (count, bytes): (usize, usize)) {
        self.pieces.truncate(self.pieces.len().saturating_sub(count));
        self.bytes -= bytes;
    }

    /// Takes the first `count` pieces of `bytes` off.
    pub(super) fn pop_front(&mut self, (count, bytes): (usize, usize)) {
        self.start += count;
        self.bytes -= bytes;
        if self.start >= self.pieces.len() {
            self.clear();
        } else if self.start >= MAX_PIECES {
            self.pieces.drain(..self.start);
            self.start = 0;
        }
    }

    fn pieces(&self) -> &[libc::iovec] {
        self.pieces.get(self.start..).unwrap_or_default()
    }

    /// Copies `data` into the run from byte `offset` on, as far as it fits.
    pub(super) fn write_at(&self, offset: usize, data: &[u8]) {
        let mut rest = data;
        for piece in from(self.pieces(), offset) {
            let (part, after) = rest.split_at(piece.iov_len.min(rest.len()));
            // SAFETY: the piece is `iov_len` bytes of guest memory, which is mapped as long as `self.memory` is; `part`
            // is no longer than that, and is memory of the host, so they do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), piece.iov_base.cast(), part.len()) };
            if after.is_empty() {
                break;
            }
            rest = after;
        }
    }

    /// Copies the run from byte `offset` on into `data`, as far as there is both. How many bytes that were.
    pub(super) fn read_at(&self, offset: usize, data: &mut [u8]) -> usize {
        let mut filled = 0;
        for piece in from(self.pieces(), offset) {
            let rest = data.get_mut(filled..).unwrap_or_default();
            let count = piece.iov_len.min(rest.len());
            // SAFETY: the piece is `iov_len` bytes of guest memory, which is mapped as long as `self.memory` is; `rest`, of
            // which no more is written than it has, is memory of the host, so they do not overlap.
            unsafe {
                std::ptr::copy_nonoverlapping(piece.iov_base.cast_const().cast(), rest.as_mut_ptr(), count);
            };
            filled += count;
            if count < piece.iov_len {
                break;
            }
        }
        filled
    }

    /// Copies the run from byte `offset` on to the end of `data`.
    pub(super) fn append_to(&self, offset: usize, data: &mut Vec<u8>) {
        data.reserve(self.bytes.saturating_sub(offset));
        for piece in from(self.pieces(), offset) {
            let len = data.len();
            data.reserve(piece.iov_len);
            // SAFETY: the piece is `iov_len` bytes of guest memory, which is mapped as long as `self.memory` is, and so
            // many bytes are reserved behind the `len` that `data` has; the copy initializes them.
            unsafe {
                let end = data.as_mut_ptr().add(len);
                std::ptr::copy_nonoverlapping(piece.iov_base.cast_const().cast(), end, piece.iov_len);
                data.set_len(len + piece.iov_len);
            }
        }
    }

    /// Reads from `fd` into the run, from byte `offset` up to byte `end`, and what is more than that into `rest`. How
    /// many bytes were read.
    pub(super) fn read(
        &mut self,
        fd: RawFd,
        offset: usize,
        end: usize,
        rest: &mut [u8],
    ) -> io::Result<usize> {
        self.call.clear();
        let pieces = self.pieces.get(self.start..).unwrap_or_default();
        let mut room = end.saturating_sub(offset);
        for mut piece in from(pieces, offset) {
            if room == 0 {
                break;
            }
            piece.iov_len = piece.iov_len.min(room);
            room -= piece.iov_len;
            self.call.push(piece);
        }
        if !rest.is_empty() {
            self.call.push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
        }
        // SAFETY: all pieces are guest memory, which is mapped as long as `self.memory` is and where anything may be
        // written at any time, or `rest`, which is borrowed for the call.
        let count = unsafe { libc::readv(fd, self.call.as_ptr(), count(&self.call)) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Writes the run to `fd`.
    pub(super) fn write(&self, fd: RawFd) -> io::Result<usize> {
        let pieces = self.pieces();
        // SAFETY: all pieces are guest memory, which is mapped as long as `self.memory` is.
        let count = unsafe { libc::writev(fd, pieces.as_ptr(), count(pieces)) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Writes `front` and then the run from byte `offset` on to `fd`. How many bytes were written.
    pub(super) fn write_behind(&mut self, fd: RawFd, front: [&[u8]; 2], offset: usize) -> io::Result<usize> {
        self.call.clear();
        self.call.extend(
            front.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() }),
        );
        let pieces = self.pieces.get(self.start..).unwrap_or_default();
        self.call.extend(from(pieces, offset));
        // SAFETY: all pieces are guest memory, which is mapped as long as `self.memory` is, or `front`, which is borrowed
        // for the call and only read.
        let count = unsafe { libc::writev(fd, self.call.as_ptr(), count(&self.call)) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

fn count(pieces: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(pieces.len()).unwrap_or(libc::c_int::MAX)
}

fn total(pieces: &[libc::iovec]) -> usize {
    pieces.iter().map(|piece| piece.iov_len).sum()
}

/// The pieces of a run from byte `offset` on.
fn from(pieces: &[libc::iovec], offset: usize) -> impl Iterator<Item = libc::iovec> {
    let mut skip = offset;
    pieces.iter().filter_map(move |piece| {
        let skipped = skip.min(piece.iov_len);
        skip -= skipped;
        let start = piece.iov_base.wrapping_byte_add(skipped);
        let rest = libc::iovec { iov_base: start, iov_len: piece.iov_len - skipped };
        (rest.iov_len > 0).then_some(rest)
    })
}
