//! The guest's receive buffers: taken from the ring a few ahead of their use, so that one system call fills many.

use std::collections::VecDeque;

use virtio_queue::Queue;
use vm_memory::Permissions;

use super::packet::{HEADER_LEN, Header};
use crate::GuestMemory;
use crate::virtio::device::{DeviceError, QueuePosition};
use crate::virtio::queue::{Chain, VirtQueue};
use crate::virtio::segments::Segments;

/// Pieces of guest memory that one system call takes (IOV_MAX).
const MAX_PIECES: usize = 1024;
/// Chains that one call takes from the ring at most: a driver can go on adding ones that are of no use.
const MAX_POPS: usize = 256;

/// A piece of guest memory where this process has it. A number and no pointer, so that the queue may change threads.
#[derive(Clone, Copy)]
struct HostPiece {
    address: usize,
    len: usize,
}

/// A place for one packet.
struct Buffer {
    head: u16,
    header: Segments,
    data: Segments,
    /// Where `data` is.
    pieces: Vec<HostPiece>,
    /// Length of `data`.
    room: u64,
}

/// The receive virtqueue.
pub(super) struct RxQueue {
    queue: VirtQueue,
    /// Taken from the ring and not used yet, oldest first.
    buffers: VecDeque<Buffer>,
    /// Buffers given back that no packet fits into.
    rejected: u64,
    /// Those that are being given back: head and length of the packet.
    used: Vec<(u16, u32)>,
}

impl RxQueue {
    pub(super) fn new(queue: VirtQueue) -> Self {
        Self { queue, buffers: VecDeque::new(), rejected: 0, used: Vec::new() }
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        self.queue.memory()
    }

    /// How far the device is; the buffers that it holds are still to be taken.
    pub(super) fn position(&self) -> QueuePosition {
        self.queue.position(self.buffers.len() as u16)
    }

    /// Takes buffers from the ring until there are `wanted`, or the ring has no more, and says whether there is one.
    /// When there is none the driver is asked to tell of the next.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<bool, DeviceError> {
        let mut asked = false;
        for _ in 0..MAX_POPS {
            if self.buffers.len() >= wanted {
                break;
            }
            if let Some(chain) = self.queue.pop()? {
                let head = chain.head;
                if let Some(buffer) = self.buffer(chain) {
                    self.buffers.push_back(buffer);
                } else if self.buffers.is_empty() {
                    self.rejected += 1;
                    self.queue.add_used(head, 0)?;
                } else {
                    // Its turn comes after those that are held: only the last ones can go back into the ring.
                    self.queue.unpop(1);
                    break;
                }
            } else if asked || !self.buffers.is_empty() || !self.queue.enable_notifications()? {
                break;
            } else {
                // Some came while the driver was asked.
                asked = true;
            }
        }
        Ok(!self.buffers.is_empty())
    }

    /// The buffer that `chain` is, if a packet fits into it.
    fn buffer(&self, chain: Chain) -> Option<Buffer> {
        let Chain { head, readable: _, writable: mut data } = chain;
        let header = data.take_front(HEADER_LEN as u64);
        let room = data.len();
        if header.len() < HEADER_LEN as u64 || room == 0 {
            return None;
        }
        header.iovecs(self.memory(), Permissions::Write).ok()?;
        let iovecs = data.iovecs(self.memory(), Permissions::Write).ok()?;
        let pieces = iovecs
            .iter()
            .map(|iovec| HostPiece { address: iovec.iov_base as usize, len: iovec.iov_len })
            .collect();
        Some(Buffer { head, header, data, pieces, room })
    }

    /// The driver told of new buffers.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(super) fn notified(&mut self) -> Result<(), DeviceError> {
        self.queue.disable_notifications()
    }

    /// Has the device called again, for it stops before everything is sent.
    pub(super) fn continue_later(&self) {
        self.queue.continue_later();
    }

    /// Where the first `limit` bytes of the stream go, in the data parts of up to `count` buffers: memory of the guest,
    /// valid for writes for as long as this queue is, and its length.
    pub(super) fn room(&self, count: usize, limit: u64) -> (Vec<libc::iovec>, u64) {
        let mut iovecs = Vec::with_capacity(count);
        let mut rest = limit as usize;
        for piece in self.buffers.iter().take(count).flat_map(|buffer| &buffer.pieces) {
            let len = piece.len.min(rest);
            if len == 0 || iovecs.len() == MAX_PIECES {
                break;
            }
            rest -= len;
            iovecs.push(libc::iovec { iov_base: piece.address as *mut libc::c_void, iov_len: len });
        }
        (iovecs, limit - rest as u64)
    }

    /// Bytes that the next buffer takes behind its header.
    pub(super) fn next_room(&self) -> u64 {
        self.buffers.front().map_or(0, |buffer| buffer.room)
    }

    /// Gives the driver packets with the `len` bytes that lie where [`room`](Self::room) said, and says how many packets
    /// those are. Without bytes it is one, the header alone. There must be a buffer.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(super) fn send(&mut self, header: Header, len: u64) -> Result<u64, DeviceError> {
        let mut rest = len;
        self.used.clear();
        while let Some(buffer) = self.buffers.pop_front() {
            let part = rest.min(buffer.room);
            rest -= part;
            let header = Header { len: part as u32, ..header };
            // All of it is in guest memory, as was checked when the buffer was taken; memory does not go away.
            let _ = buffer.header.write(self.queue.memory(), &header.to_bytes());
            buffer.data.mark_dirty(self.queue.memory(), part);
            self.used.push((buffer.head, HEADER_LEN as u32 + part as u32));
            if rest == 0 {
                break;
            }
        }
        self.queue.add_used_together(&self.used)?;
        Ok(self.used.len() as u64)
    }

    /// How many buffers were given back since [`take_rejected`](Self::take_rejected) because no packet fits into them.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The same, counted anew from now on.
    pub(super) fn take_rejected(&mut self) -> u64 {
        std::mem::take(&mut self.rejected)
    }

    /// Tells the driver of the packets that it was given.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(super) fn notify_driver(&mut self) -> Result<(), DeviceError> {
        self.queue.notify_driver()
    }

    /// Ends the use of the queue; the buffers that were not used are in the ring again.
    pub(super) fn into_inner(mut self) -> Queue {
        self.queue.unpop(self.buffers.len() as u16);
        self.queue.into_inner()
    }
}
