//! transmitq1 (virtio 1.3, 5.1.2): the driver's packets.

use vm_memory::Permissions;

use super::backend::{ETHERNET_HEADER_LEN, HEADER_LEN};
use super::iovecs::{IoVecs, MAX_PIECES};
use crate::virtio::device::{DeviceError, QueuePosition};
use crate::virtio::queue::{Chain, VirtQueue};

/// What is next in the queue.
pub(super) enum Next {
    /// Nothing.
    None,
    /// A packet, in [`TransmitQueue::packet`].
    Packet,
    /// Something that is none; it has been given back.
    Nonsense,
}

/// What exists of the queue from DRIVER_OK to the next reset.
pub(super) struct TransmitQueue {
    pub(super) queue: VirtQueue,
    chain: Chain,
    /// The packet that is being sent.
    pub(super) packet: IoVecs,
    /// It could not be sent yet.
    held: bool,
    /// The backend has no room, and tells when it has.
    pub(super) stalled: bool,
}

impl TransmitQueue {
    pub(super) fn new(queue: VirtQueue) -> Self {
        let packet = IoVecs::new(queue.memory().clone());
        Self { queue, chain: Chain::default(), packet, held: false, stalled: false }
    }

    /// Looks at the next packet, of `max_frame_len` bytes without its header at most. It stays the next one until it is
    /// [`done`](Self::done).
    pub(super) fn next(&mut self, max_frame_len: usize) -> Result<Next, DeviceError> {
        if self.held {
            return Ok(Next::Packet);
        }
        if !self.queue.pop_into(&mut self.chain)? {
            return Ok(Next::None);
        }
        self.packet.clear();
        let extent = self.packet.push(&self.chain.readable, Permissions::Read);
        let lens = HEADER_LEN + ETHERNET_HEADER_LEN..=HEADER_LEN + max_frame_len;
        match extent {
            Ok((pieces, bytes)) if pieces <= MAX_PIECES && lens.contains(&bytes) => {
                self.held = true;
                Ok(Next::Packet)
            }
            _ => {
                self.queue.add_used(self.chain.head, 0)?;
                Ok(Next::Nonsense)
            }
        }
    }

    /// How far the device is; a packet that could not be sent yet is still to be taken.
    pub(super) fn position(&self) -> QueuePosition {
        self.queue.position(self.held.into())
    }

    /// Gives the packet's buffer back.
    pub(super) fn done(&mut self) -> Result<(), DeviceError> {
        self.held = false;
        self.queue.add_used(self.chain.head, 0)
    }
}
