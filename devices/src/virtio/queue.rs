//! A virtqueue as a device uses it: chains come out, used buffers go in, and both sides are told no more than they
//! ask.
//!
//! The rings themselves are `virtio-queue`'s. What that crate cannot tell apart, this module does: a chain that ends
//! from one that is broken off (it loops, leaves its table, or has a descriptor outside of guest memory). A broken
//! chain or ring is an error, for the driver has no other way to learn of it than DEVICE_NEEDS_RESET (virtio 1.3,
//! 2.1.2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

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
#[derive(Debug)]
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
    /// Chains were given back that the driver was not told of.
    untold: bool,
}

impl VirtQueue {
    /// The queue `index` of a device, in `memory`, which notifies its driver by `interrupt`.
    pub fn new(index: u16, queue: Queue, memory: GuestMemory, interrupt: Arc<dyn DeviceInterrupt>) -> Self {
        Self { index, queue, memory, interrupt, untold: false }
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
        if !self.ready() {
            return Ok(None);
        }
        let index = self.index;
        let broken = |message: String| DeviceError::Queue { queue: index, message };
        let memory = &self.memory;
        let mut available = self.queue.iter(memory).map_err(|error| broken(error.to_string()))?;
        let Some(descriptors) = available.next() else { return Ok(None) };

        let head = descriptors.head_index();
        if head >= self.queue.size() {
            return Err(broken(format!("head {head} is not below the queue size {}", self.queue.size())));
        }
        let (mut readable, mut writable) = (Segments::default(), Segments::default());
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
        Ok(Some(Chain { head, readable, writable }))
    }

    /// Gives the chain `head` back, with `written` bytes written to the front of its writable part.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn add_used(&mut self, head: u16, written: u32) -> Result<(), DeviceError> {
        self.untold = true;
        self.queue.add_used(&self.memory, head, written).map_err(|error| self.error(&error))
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
        if !self.ready() || !std::mem::take(&mut self.untold) {
            return Ok(());
        }
        let wanted = self.queue.needs_notification(&self.memory).map_err(|error| self.error(&error))?;
        if wanted && (self.queue.event_idx_enabled() || !self.interrupts_suppressed()) {
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
