//! A virtqueue as a device uses it: chains come out, used buffers go in, and both sides are told no more than they
//! ask.
//!
//! Where the rings are and how far each side is in them is `virtio-queue`'s [`Queue`]; going through them is done here,
//! where it costs a fraction of the instructions, and where a chain that ends is told from one that is broken off (it
//! loops, leaves its table, or has a descriptor outside of guest memory). A broken chain or ring is an error, for the
//! driver has no other way to learn of it than DEVICE_NEEDS_RESET (virtio 1.3, 2.1.2).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryError};

use super::device::{DeviceError, DeviceInterrupt, QueuePosition};
use super::ring_memory;
use super::segments::{Segment, Segments};
use crate::GuestMemory;

/// Descriptors that one chain can have. A driver must stay below its queue size (virtio 1.3, 2.7.5.3.1), but Linux
/// does not with indirect tables; this is what one vectored system call takes (IOV_MAX), and what bounds a chain's
/// memory.
pub const MAX_CHAIN_LEN: usize = 1024;

/// Size of a descriptor in bytes (virtio 1.3, 2.7.5).
const DESCRIPTOR_SIZE: u64 = 16;
/// Where the entries of both rings begin, behind `flags` and `idx` (2.7.6, 2.7.8).
const RING_OFFSET: u64 = 4;
/// Where `idx` is.
const INDEX_OFFSET: u64 = 2;

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
    /// Index of the available ring when it was last looked at: what is before it is there.
    available: u16,
    /// Index of the used ring when the driver's wish for a notification was last looked at.
    notified: u16,
}

impl VirtQueue {
    /// The queue `index` of a device, in `memory`, which notifies its driver by `interrupt`.
    pub fn new(index: u16, queue: Queue, memory: GuestMemory, interrupt: Arc<dyn DeviceInterrupt>) -> Self {
        let (notified, available) = (queue.next_used(), queue.next_avail());
        Self { index, queue, memory, interrupt, available, notified }
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
        chain.readable.clear();
        chain.writable.clear();
        if !self.ready() {
            return Ok(false);
        }
        let next = self.queue.next_avail();
        if self.available == next {
            self.look()?;
            if self.available == next {
                return Ok(false);
            }
        }
        let entry = self.queue.avail_ring() + RING_OFFSET + 2 * u64::from(next % self.size().max(1));
        let head = self.load(entry, Ordering::Relaxed)?;
        self.queue.set_next_avail(next.wrapping_add(1));
        if head >= self.size() {
            return Err(self.broken(format!("head {head} is not below the queue size {}", self.size())));
        }
        chain.head = head;
        self.walk(chain).map_err(|message| self.broken(message))?;
        Ok(true)
    }

    /// Looks how far the driver is.
    fn look(&mut self) -> Result<(), DeviceError> {
        // Acquire: the entries and descriptors that the index stands for are read after it.
        let available = self.load(self.queue.avail_ring() + INDEX_OFFSET, Ordering::Acquire)?;
        let next = self.queue.next_avail();
        if available.wrapping_sub(next) > self.size() {
            let size = self.size();
            return Err(self.broken(format!(
                "the available ring's index went from {next} to {available}, and the queue size is {size}"
            )));
        }
        self.available = available;
        Ok(())
    }

    /// Follows the descriptors from `chain.head` on.
    fn walk(&self, chain: &mut Chain) -> Result<(), String> {
        let Chain { head, readable, writable } = chain;
        let off_the_rails = || format!("chain at {head} loops, leaves its table or is longer than it");
        let mut table = self.queue.desc_table();
        let mut table_len = self.size();
        let (mut index, mut followed, mut indirect) = (*head, 0, false);
        let mut count = 0;
        loop {
            if index >= table_len || followed >= table_len {
                return Err(off_the_rails());
            }
            followed += 1;
            let address = table.checked_add(DESCRIPTOR_SIZE * u64::from(index)).ok_or_else(off_the_rails)?;
            let descriptor: Descriptor =
                ring_memory::read(&self.memory, GuestAddress(address)).map_err(|_| off_the_rails())?;
            if descriptor.refers_to_indirect_table() {
                let len = u64::from(descriptor.len());
                if indirect || !len.is_multiple_of(DESCRIPTOR_SIZE) {
                    return Err(off_the_rails());
                }
                table_len = u16::try_from(len / DESCRIPTOR_SIZE).map_err(|_| off_the_rails())?;
                table = descriptor.addr().0;
                (index, followed, indirect) = (0, 0, true);
                continue;
            }
            if count >= MAX_CHAIN_LEN {
                return Err(format!("chain at {head} has more than {MAX_CHAIN_LEN} descriptors"));
            }
            count += 1;
            let segment = Segment { address: descriptor.addr(), len: descriptor.len() };
            if descriptor.is_write_only() {
                writable.push(segment);
            } else if writable.is_empty() {
                readable.push(segment);
            } else {
                return Err(format!(
                    "chain at {head} has a device-readable buffer after a device-writable one"
                ));
            }
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
    }

    /// Gives the chain `head` back, with `written` bytes written to the front of its writable part.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn add_used(&mut self, head: u16, written: u32) -> Result<(), DeviceError> {
        self.add_used_together(&[(head, written)])
    }

    /// Gives several chains back at once, each with the bytes written to it: the driver sees all of them or none.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn add_used_together(&mut self, used: &[(u16, u32)]) -> Result<(), DeviceError> {
        let mut index = self.queue.next_used();
        for (head, len) in used {
            let element = self.queue.used_ring() + RING_OFFSET + 8 * u64::from(index % self.size().max(1));
            let value = [u32::from(*head).to_le(), len.to_le()];
            ring_memory::write(&self.memory, GuestAddress(element), value)
                .map_err(|error| self.outside(&error))?;
            index = index.wrapping_add(1);
        }
        self.queue.set_next_used(index);
        // Release: whoever sees the index sees the elements.
        self.store(self.queue.used_ring() + INDEX_OFFSET, index, Ordering::Release)
    }

    /// Takes the last `count` chains that [`pop`](Self::pop) gave back into the ring, to be popped again. None of them
    /// may have been given to [`add_used`](Self::add_used).
    pub fn unpop(&mut self, count: u16) {
        self.queue.set_next_avail(self.queue.next_avail().wrapping_sub(count));
    }

    /// How far the device is, when the last `held` chains that [`pop`](Self::pop) gave are still its own.
    pub fn position(&self, held: u16) -> QueuePosition {
        QueuePosition {
            next_avail: self.queue.next_avail().wrapping_sub(held),
            next_used: self.queue.next_used(),
        }
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
        if self.queue.event_idx_enabled() {
            // The driver notifies once for the index that it was last asked for, and that one has come.
            return Ok(());
        }
        self.store(self.queue.used_ring(), VRING_USED_F_NO_NOTIFY as u16, Ordering::Relaxed)
    }

    /// Asks the driver to notify again. True when chains came meanwhile, which must be looked at now.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn enable_notifications(&mut self) -> Result<bool, DeviceError> {
        if !self.ready() {
            return Ok(false);
        }
        let next = self.queue.next_avail();
        self.ask_for_notification(next)?;
        // The driver first makes chains available and then looks whether to notify; here it is the other way round.
        fence(Ordering::SeqCst);
        self.look()?;
        Ok(self.available != next)
    }

    /// Asks the driver to notify when it adds a chain to those that it has made available, be they taken or not; how many
    /// it has made available in all, as the available ring's index.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn await_addition(&mut self) -> Result<u16, DeviceError> {
        if !self.ready() {
            return Ok(0);
        }
        self.look()?;
        let available = self.available;
        self.ask_for_notification(available)?;
        Ok(available)
    }

    /// Asks the driver to notify when it adds the chain that has this index in the available ring; without
    /// VIRTIO_F_EVENT_IDX, when it adds any.
    fn ask_for_notification(&self, index: u16) -> Result<(), DeviceError> {
        if self.queue.event_idx_enabled() {
            // avail_event (virtio 1.3, 2.7.8)
            self.store(
                self.queue.used_ring() + RING_OFFSET + 8 * u64::from(self.size()),
                index,
                Ordering::Relaxed,
            )
        } else {
            self.store(self.queue.used_ring(), 0, Ordering::Relaxed)
        }
    }

    /// How many chains the driver has made available in all, as the available ring's index.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn available(&mut self) -> Result<u16, DeviceError> {
        if self.ready() {
            self.look()?;
        }
        Ok(self.available)
    }

    /// Has the device called again for this queue, because it stops before the queue is empty.
    pub fn continue_later(&self) {
        self.interrupt.continue_queue(self.index);
    }

    /// used_event (virtio 1.3, 2.7.10): the driver wants to hear once the used ring's index passes it.
    fn used_event(&self) -> Result<u16, DeviceError> {
        self.load(self.queue.avail_ring() + RING_OFFSET + 2 * u64::from(self.size()), Ordering::Relaxed)
    }

    /// VIRTQ_AVAIL_F_NO_INTERRUPT (virtio 1.3, 2.7.7), which counts without VIRTIO_F_EVENT_IDX only.
    fn interrupts_suppressed(&self) -> bool {
        let flags = self.load(self.queue.avail_ring(), Ordering::Acquire).unwrap_or_default();
        u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT != 0
    }

    fn load(&self, address: u64, order: Ordering) -> Result<u16, DeviceError> {
        ring_memory::load(&self.memory, GuestAddress(address), order).map_err(|error| self.outside(&error))
    }

    fn store(&self, address: u64, value: u16, order: Ordering) -> Result<(), DeviceError> {
        ring_memory::store(&self.memory, GuestAddress(address), value, order)
            .map_err(|error| self.outside(&error))
    }

    /// The rings were in guest memory when the driver set them up, and guest memory does not go away.
    fn outside(&self, error: &GuestMemoryError) -> DeviceError {
        self.broken(error.to_string())
    }

    fn broken(&self, message: String) -> DeviceError {
        DeviceError::Queue { queue: self.index, message }
    }
}
