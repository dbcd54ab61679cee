//! A virtqueue as a device uses it: chains come out, used buffers go in, and both sides are told no more than they
//! ask.
//!
//! The rings themselves are `virtio-queue`'s. What that crate cannot tell apart, this module does: a chain that ends
//! from one that is broken off (it loops, leaves its table, or has a descriptor outside of guest memory). A broken
//! chain or ring is an error, for the driver has no other way to learn of it than DEVICE_NEEDS_RESET (virtio 1.3,
//! 2.1.2).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::device::{DeviceError, DeviceInterrupt};
use super::segments::{Segment, Segments};
use crate::GuestMemory;

/// Descriptors that one chain can have. A driver must stay below its queue size (virtio 1.3, 2.7.5.3.1), but Linux
/// does not with indirect tables; this is what one vectored system call takes (IOV_MAX), and what bounds a chain's
/// memory.
pub const MAX_CHAIN_LEN: usize = 1024;

/// A chain of descriptors that the driver made available.
#[derive(Debug, Default)]
pub struct Chain {
    /// Index of the first descriptor, by which the chain is returned.
    pub head: u16,
    /// What the device reads.
    pub readable: Segments,
    /// What the device writes.
    pub writable: Segments,
}

/// A virtqueue of a device that is active.
pub struct VirtQueue {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    interrupt: Arc<dyn DeviceInterrupt>,
    /// Index of the used ring when the driver's wish for a notification was last looked at.
    notified: u16,
}

impl VirtQueue {
    /// The queue `index` of a device, in `memory`, which notifies its driver by `interrupt`.
    pub fn new(index: u16, queue: Queue, memory: GuestMemory, interrupt: Arc<dyn DeviceInterrupt>) -> Self {
        let notified = queue.next_used();
        Self { index, queue, memory, interrupt, notified }
    }

    /// Guest memory that the buffers are in.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Number of descriptors in the ring.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Ends the use of the queue: what [`VirtioDevice::deactivate`](super::device::VirtioDevice::deactivate) returns.
    pub fn into_inner(self) -> Queue {
        self.queue
    }

    /// The next chain that the driver made available, if there is one.
    ///
    /// # Errors
    /// When the driver broke the ring or the chain.
    pub fn pop(&mut self) -> Result<Option<Chain>, DeviceError> {
        let mut chain = Chain::default();
        Ok(self.pop_into(&mut chain)?.then_some(chain))
    }

    /// The same as [`pop`](Self::pop) into `chain`, whose memory is used again; false when there is no chain.
    ///
    /// # Errors
    /// When the driver broke the ring or the chain.
    pub fn pop_into(&mut self, chain: &mut Chain) -> Result<bool, DeviceError> {
        let Chain { head: chain_head, readable, writable } = chain;
        readable.clear();
        writable.clear();
        if !self.ready() {
            return Ok(false);
        }
        let index = self.index;
        let broken = |message: String| DeviceError::Queue { queue: index, message };
        let memory = &self.memory;
        let mut available = self.queue.iter(memory).map_err(|error| broken(error.to_string()))?;
        let Some(descriptors) = available.next() else { return Ok(false) };

        let head = descriptors.head_index();
        if head >= self.queue.size() {
            return Err(broken(format!("head {head} is not below the queue size {}", self.queue.size())));
        }
        let mut ended = false;
        for (count, descriptor) in descriptors.enumerate() {
            if count >= MAX_CHAIN_LEN {
                return Err(broken(format!("chain at {head} has more than {MAX_CHAIN_LEN} descriptors")));
            }
            let segment = Segment { address: descriptor.addr(), len: descriptor.len() };
            if descriptor.is_write_only() {
                writable.push(segment);
            } else if writable.is_empty() {
                readable.push(segment);
            } else {
                let message =
                    format!("chain at {head} has a device-readable buffer after a device-writable one");
                return Err(broken(message));
            }
            ended = !descriptor.has_next();
        }
        if !ended {
            return Err(broken(format!("chain at {head} loops, leaves its table or is longer than it")));
        }
        *chain_head = head;
        Ok(true)
    }

    /// Gives the chain `head` back, with `written` bytes written to the front of its writable part.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn add_used(&mut self, head: u16, written: u32) -> Result<(), DeviceError> {
        self.queue.add_used(&self.memory, head, written).map_err(|error| self.error(&error))
    }

    /// Gives several chains back at once, each with the bytes written to it: the driver sees all of them or none.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn add_used_together(&mut self, used: &[(u16, u32)]) -> Result<(), DeviceError> {
        let Some(((last, last_len), before)) = used.split_last() else { return Ok(()) };
        let size = self.queue.size().max(1);
        let mut index = self.queue.next_used();
        for (head, len) in before {
            // The ring is in guest memory, as was checked when the driver set it up.
            let element = self.queue.used_ring() + 4 + 8 * u64::from(index % size);
            self.memory
                .write_obj([u32::from(*head).to_le(), len.to_le()], GuestAddress(element))
                .map_err(|error| self.error(&virtio_queue::Error::GuestMemory(error)))?;
            index = index.wrapping_add(1);
        }
        // What moves the ring's index is the last one, past all of them.
        self.queue.set_next_used(index);
        self.add_used(*last, *last_len)
    }

    /// Takes the last `count` chains that [`pop`](Self::pop) gave back into the ring, to be popped again. None of them
    /// may have been given to [`add_used`](Self::add_used).
    pub fn unpop(&mut self, count: u16) {
        self.queue.set_next_avail(self.queue.next_avail().wrapping_sub(count));
    }

    /// Whether the driver set this queue up. One that it did not has no chains, and its rings are not touched.
    fn ready(&self) -> bool {
        self.queue.ready()
    }

    /// Tells the driver of the chains that were given back since the last call, if it wants to hear of them.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn notify_driver(&mut self) -> Result<(), DeviceError> {
        if !self.ready() {
            return Ok(());
        }
        // The driver first says what it waits for and then looks at the ring; here it is the other way round.
        fence(Ordering::SeqCst);
        let used = self.queue.next_used();
        let added = used.wrapping_sub(std::mem::replace(&mut self.notified, used));
        let wanted = if added == 0 {
            false
        } else if self.queue.event_idx_enabled() {
            // vring_need_event (virtio 1.3, 2.7.10): the index that it waits for is among those that were added.
            used.wrapping_sub(self.used_event()?).wrapping_sub(1) < added
        } else {
            !self.interrupts_suppressed()
        };
        if wanted {
            self.interrupt.signal_queue(self.index);
        }
        Ok(())
    }

    /// Asks the driver not to notify while the device looks at the queue anyway.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn disable_notifications(&mut self) -> Result<(), DeviceError> {
        if !self.ready() {
            return Ok(());
        }
        self.queue.disable_notification(&self.memory).map_err(|error| self.error(&error))
    }

    /// Asks the driver to notify again. True when chains came meanwhile, which must be looked at now.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn enable_notifications(&mut self) -> Result<bool, DeviceError> {
        if !self.ready() {
            return Ok(false);
        }
        self.queue.enable_notification(&self.memory).map_err(|error| self.error(&error))
    }

    /// Has the device called again for this queue, because it stops before the queue is empty.
    pub fn continue_later(&self) {
        self.interrupt.continue_queue(self.index);
    }

    /// used_event (virtio 1.3, 2.7.10): the driver wants to hear once the used ring's index passes it.
    fn used_event(&self) -> Result<u16, DeviceError> {
        let address = self.queue.avail_ring() + 4 + 2 * u64::from(self.queue.size());
        self.memory
            .load(GuestAddress(address), Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(|error| self.error(&virtio_queue::Error::GuestMemory(error)))
    }

    /// VIRTQ_AVAIL_F_NO_INTERRUPT (virtio 1.3, 2.7.7), which counts without VIRTIO_F_EVENT_IDX only.
    fn interrupts_suppressed(&self) -> bool {
        let flags: u16 = self
            .memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Acquire)
            .map(u16::from_le)
            .unwrap_or_default();
        u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT != 0
    }

    fn error(&self, error: &virtio_queue::Error) -> DeviceError {
        DeviceError::Queue { queue: self.index, message: error.to_string() }
    }
}
