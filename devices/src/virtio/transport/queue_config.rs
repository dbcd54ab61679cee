//! A virtqueue as the driver configures it, before the device gets it.

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use crate::GuestMemory;
use crate::virtio::device::QueuePosition;
use crate::virtio::state::QueueStateV1;

/// Which of the three parts of a split virtqueue (virtio 1.3, 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueArea {
    /// Descriptor table (QueueDesc).
    Descriptor,
    /// Available ring (QueueDriver).
    Driver,
    /// Used ring (QueueDevice).
    Device,
}

/// Which half of a 64-bit register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Bits 0 to 31.
    Low,
    /// Bits 32 to 63.
    High,
}

impl Half {
    /// This half of `register`.
    pub(super) fn of(self, register: u64) -> u32 {
        match self {
            Self::Low => register as u32,
            Self::High => (register >> 32) as u32,
        }
    }

    /// `register` with this half replaced by `value`.
    pub(super) fn replace(self, register: u64, value: u32) -> u64 {
        match self {
            Self::Low => (register & !0xffff_ffff) | u64::from(value),
            Self::High => (register & 0xffff_ffff) | u64::from(value) << 32,
        }
    }
}

/// The registers of one virtqueue. Anything can be in them until the queue is made ready.
#[derive(Clone, Debug)]
pub(super) struct QueueConfig {
    max_size: u16,
    size: u32,
    ready: bool,
    descriptor: u64,
    driver: u64,
    device: u64,
}

impl QueueConfig {
    pub(super) fn new(max_size: u16) -> Self {
        Self { max_size, size: u32::from(max_size), ready: false, descriptor: 0, driver: 0, device: 0 }
    }

    /// What a snapshot keeps, of a queue in which the device is at `position`.
    pub(super) fn save(&self, position: QueuePosition) -> QueueStateV1 {
        let Self { max_size: _, size, ready, descriptor, driver, device } = *self;
        let QueuePosition { next_avail, next_used } = position;
        QueueStateV1 { size, ready, descriptor, driver, device, next_avail, next_used }
    }

    /// The registers of a queue that was saved, of a device whose largest is `max_size`.
    ///
    /// # Errors
    /// A message, when it is ready and cannot be.
    pub(super) fn restore(max_size: u16, state: &QueueStateV1) -> Result<Self, String> {
        let QueueStateV1 { size, ready, descriptor, driver, device, next_avail: _, next_used: _ } = *state;
        let restored = Self { max_size, size, ready, descriptor, driver, device };
        if ready && restored.valid_size().is_none() {
            return Err(format!("ready with size {size}: it is a power of two up to {max_size}"));
        }
        Ok(restored)
    }

    pub(super) fn max_size(&self) -> u16 {
        self.max_size
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn address(&self, area: QueueArea) -> u64 {
        match area {
            QueueArea::Descriptor => self.descriptor,
            QueueArea::Driver => self.driver,
            QueueArea::Device => self.device,
        }
    }

    pub(super) fn ready(&self) -> bool {
        self.ready
    }

    pub(super) fn set_size(&mut self, size: u32) {
        if !self.ready {
            self.size = size;
        }
    }

    pub(super) fn set_address(&mut self, area: QueueArea, half: Half, value: u32) {
        if self.ready {
            return;
        }
        let register = match area {
            QueueArea::Descriptor => &mut self.descriptor,
            QueueArea::Driver => &mut self.driver,
            QueueArea::Device => &mut self.device,
        };
        *register = half.replace(*register, value);
    }

    /// QueueReady: a queue whose size is not a power of two up to the maximum does not become ready, and reads so.
    pub(super) fn set_ready(&mut self, ready: bool) {
        self.ready = ready && self.valid_size().is_some();
    }

    fn valid_size(&self) -> Option<u16> {
        u16::try_from(self.size).ok().filter(|size| size.is_power_of_two() && *size <= self.max_size)
    }

    /// The queue for the device, with `features` negotiated. One that is not ready is returned so.
    ///
    /// # Errors
    /// A message, when a part of a ready queue is not aligned as virtio 1.3, 2.7 asks or is not in `memory`.
    pub(super) fn build(&self, memory: &GuestMemory, features: u64) -> Result<Queue, String> {
        let mut queue = Queue::new(self.max_size).map_err(|error| error.to_string())?;
        if !self.ready {
            return Ok(queue);
        }
        let size = self.valid_size().ok_or_else(|| format!("size {} is not valid", self.size))?;
        let count = usize::from(size);
        let area = |name: &str, address: u64, len: usize, access: Permissions| {
            let inside = memory.check_range(GuestAddress(address), len, access);
            inside
                .then_some(GuestAddress(address))
                .ok_or_else(|| format!("{name} of {len:#x} bytes at {address:#x} is outside of guest memory"))
        };
        let descriptor = area("descriptor table", self.descriptor, 16 * count, Permissions::Read)?;
        let driver = area("available ring", self.driver, 6 + 2 * count, Permissions::Read)?;
        let device = area("used ring", self.device, 6 + 8 * count, Permissions::Write)?;

        let misaligned = |error: virtio_queue::Error| error.to_string();
        queue.try_set_size(size).map_err(misaligned)?;
        queue.try_set_desc_table_address(descriptor).map_err(misaligned)?;
        queue.try_set_avail_ring_address(driver).map_err(misaligned)?;
        queue.try_set_used_ring_address(device).map_err(misaligned)?;
        queue.set_event_idx(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
        queue.set_ready(true);
        Ok(queue)
    }
}
