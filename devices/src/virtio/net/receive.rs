//! receiveq1 (virtio 1.3, 5.1.2): the driver's empty buffers, and what packets are put into.

use std::collections::VecDeque;

use smallvec::SmallVec;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, Permissions};

use super::backend::{HEADER_LEN, NUM_BUFFERS_OFFSET};
use super::iovecs::IoVecs;
use crate::GuestMemory;
use crate::virtio::device::{DeviceError, QueuePosition};
use crate::virtio::queue::{Chain, VirtQueue};
use crate::virtio::segments::Segments;

/// Pieces that one buffer can have. Linux uses 19 at most.
const MAX_PIECES_PER_BUFFER: usize = 480;
/// Pieces after which no more buffers are looked at: with one more buffer it is still what one system call takes.
const ENOUGH_PIECES: usize = 512;
/// Useless buffers that are given back before the driver is taken for broken.
const MAX_USELESS: usize = 256;

/// A buffer that the driver has made available. A useless one behind others waits for its turn, so that those that the
/// device holds are always the last ones that it took.
struct Buffer {
    head: u16,
    /// Pieces and bytes of it in the room; none of a useless one.
    extent: (usize, usize),
    segments: Segments,
}

impl Buffer {
    fn is_useless(&self) -> bool {
        self.extent.1 == 0
    }
}

/// What exists of the queue from DRIVER_OK to the next reset.
pub(super) struct ReceiveQueue {
    pub(super) queue: VirtQueue,
    buffers: VecDeque<Buffer>,
    /// The buffers one after the other.
    pub(super) room: IoVecs,
    /// A packet of so many bytes is in the front of the room, and waits for the rate limiter.
    pub(super) packet: Option<usize>,
    /// VIRTIO_NET_F_MRG_RXBUF: a packet may take several buffers.
    mergeable: bool,
    /// Somebody wants to know which memory was written.
    tracked: bool,
    chain: Chain,
    /// Memory to be used again.
    spare: Vec<Segments>,
    used: Vec<(u16, u32)>,
    /// Useless buffers that were given back and not asked about yet.
    useless: usize,
}

impl ReceiveQueue {
    pub(super) fn new(queue: VirtQueue, mergeable: bool) -> Self {
        let memory = queue.memory().clone();
        Self {
            queue,
            buffers: VecDeque::new(),
            tracked: is_tracked(&memory),
            room: IoVecs::new(memory),
            packet: None,
            mergeable,
            chain: Chain::default(),
            spare: Vec::new(),
            used: Vec::new(),
            useless: 0,
        }
    }

    /// How far the device is; the buffers that it holds are still to be taken.
    pub(super) fn position(&self) -> QueuePosition {
        self.queue.position(self.buffers.len() as u16)
    }

    /// Makes the room `wanted` bytes large, as far as the driver has buffers and one packet can use several. Whether
    /// there is a buffer at all.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<bool, DeviceError> {
        let mut useless = 0;
        while self.buffers.is_empty()
            || self.mergeable
                && self.room.bytes() < wanted
                && self.room.count() < ENOUGH_PIECES
                && self.buffers.len() < usize::from(self.queue.size())
        {
            if !self.queue.pop_into(&mut self.chain)? {
                break;
            }
            let head = self.chain.head;
            match self.room.push(&self.chain.writable, Permissions::Write) {
                Ok(extent @ (pieces, bytes)) if pieces <= MAX_PIECES_PER_BUFFER && bytes >= HEADER_LEN => {
                    let recycled = self.spare.pop().unwrap_or_default();
                    let segments = std::mem::replace(&mut self.chain.writable, recycled);
                    self.buffers.push_back(Buffer { head, extent, segments });
                    continue;
                }
                Ok(extent) => self.room.pop_back(extent),
                Err(_) => {}
            }
            useless += 1;
            self.useless += 1;
            if useless > MAX_USELESS {
                return Err(DeviceError::Queue {
                    queue: 0,
                    message: "nothing but useless buffers".to_owned(),
                });
            }
            if self.buffers.is_empty() {
                self.queue.add_used(head, 0)?;
            } else {
                self.buffers.push_back(Buffer { head, extent: (0, 0), segments: Segments::default() });
            }
        }
        Ok(!self.buffers.is_empty())
    }

    /// How many useless buffers were given back since the last call: looking at them took its time.
    pub(super) fn take_useless(&mut self) -> usize {
        std::mem::take(&mut self.useless)
    }

    /// Whether the room cannot become larger, whatever the driver does.
    pub(super) fn is_full(&self) -> bool {
        let all = self.buffers.len() >= usize::from(self.queue.size());
        all || self.room.count() >= ENOUGH_PIECES || !self.mergeable && !self.buffers.is_empty()
    }

    /// Gives the driver the packet of `len` bytes in the front of the room.
    pub(super) fn deliver(&mut self, len: usize) -> Result<(), DeviceError> {
        self.used.clear();
        let (mut rest, mut extent) = (len, (0, 0));
        let mut useless = SmallVec::<[u16; 4]>::new();
        while self.buffers.front().is_some_and(|buffer| rest > 0 || buffer.is_useless()) {
            let Some(buffer) = self.buffers.pop_front() else { break };
            if buffer.is_useless() {
                useless.push(buffer.head);
                continue;
            }
            let part = buffer.extent.1.min(rest);
            rest -= part;
            extent.0 += buffer.extent.0;
            extent.1 += buffer.extent.1;
            self.used.push((buffer.head, part as u32));
            if self.tracked {
                buffer.segments.mark_dirty(self.queue.memory(), part as u64);
            }
            self.spare.push(buffer.segments);
        }
        self.room.write_at(NUM_BUFFERS_OFFSET, &(self.used.len() as u16).to_le_bytes());
        self.room.pop_front(extent);
        self.used.extend(useless.into_iter().map(|head| (head, 0)));
        self.queue.add_used_together(&self.used)
    }
}

/// Whether memory keeps a bitmap of what was written.
fn is_tracked(memory: &GuestMemory) -> bool {
    memory.iter().any(|region| region.bitmap().is_some())
}
