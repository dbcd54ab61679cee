//! virtio-mmio (virtio 1.3, 4.2.2), version 2: decodes register accesses, no more.
//!
//! Registers below the configuration space are read and written by aligned 32-bit accesses; any other reads as zero
//! and writes nothing, as do registers that do not exist.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_mmio as mmio;

use super::Transport;
use super::core::{Half, QueueArea, TransportCore};
use super::line::Line;
use crate::GuestMemory;
use crate::bus::{BusAction, BusDevice};
use crate::interrupt::Interrupt;
use crate::state::StateError;
use crate::virtio::device::SharedDevice;
use crate::virtio::state::{BusState, VirtioStateV1};

/// Bytes of address space that a device takes: a page, so that each can be mapped or left out by itself.
pub const SIZE: u64 = 0x1000;

/// MagicValue: "virt".
const MAGIC: u32 = 0x7472_6976;
/// Version of a device that is not legacy.
const VERSION: u32 = 2;
/// VendorID: "rvmm".
const VENDOR_ID: u32 = u32::from_le_bytes(*b"rvmm");
/// SHMLen and SHMBase of a shared memory region that does not exist.
const NO_SHARED_MEMORY: u32 = u32::MAX;
const CONFIG_OFFSET: u64 = mmio::VIRTIO_MMIO_CONFIG as u64;

/// What a snapshot keeps of this transport alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmioStateV1 {
    /// InterruptStatus.
    pub interrupt_status: u32,
}

/// A virtio device behind memory-mapped registers.
pub struct MmioTransport {
    core: Arc<TransportCore>,
    line: Arc<Line>,
}

impl MmioTransport {
    /// Offset of QueueNotify: where an ioeventfd with the queue's index as its datamatch replaces the exit.
    pub const QUEUE_NOTIFY_OFFSET: u64 = mmio::VIRTIO_MMIO_QUEUE_NOTIFY as u64;

    /// Shows `device`, whose queues will lie in `memory`, and which interrupts by `interrupt`.
    ///
    /// # Errors
    /// When the host gives no eventfd for a queue.
    pub fn new(memory: GuestMemory, device: SharedDevice, interrupt: Arc<dyn Interrupt>) -> io::Result<Self> {
        let line = Arc::new(Line::new(interrupt));
        let core = Arc::new(TransportCore::new(memory, device, line.clone())?);
        Ok(Self { core, line })
    }

    fn read_register(&self, register: u32) -> u32 {
        let core = &self.core;
        match register {
            mmio::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            mmio::VIRTIO_MMIO_VERSION => VERSION,
            mmio::VIRTIO_MMIO_DEVICE_ID => core.device_type(),
            mmio::VIRTIO_MMIO_VENDOR_ID => VENDOR_ID,
            mmio::VIRTIO_MMIO_DEVICE_FEATURES => core.device_features(),
            mmio::VIRTIO_MMIO_QUEUE_NUM_MAX => core.queue_max_size(),
            mmio::VIRTIO_MMIO_QUEUE_READY => u32::from(core.queue_ready()),
            mmio::VIRTIO_MMIO_INTERRUPT_STATUS => self.line.status(),
            mmio::VIRTIO_MMIO_STATUS => core.status(),
            mmio::VIRTIO_MMIO_SHM_LEN_LOW
            | mmio::VIRTIO_MMIO_SHM_LEN_HIGH
            | mmio::VIRTIO_MMIO_SHM_BASE_LOW
            | mmio::VIRTIO_MMIO_SHM_BASE_HIGH => NO_SHARED_MEMORY,
            mmio::VIRTIO_MMIO_CONFIG_GENERATION => core.config_generation(),
            _ => 0,
        }
    }

    fn write_register(&self, register: u32, value: u32) {
        use Half::{High, Low};
        use QueueArea::{Descriptor, Device, Driver};
        let core = &self.core;
        match register {
            mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL => core.select_device_features(value),
            mmio::VIRTIO_MMIO_DRIVER_FEATURES => core.set_driver_features(value),
            mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL => core.select_driver_features(value),
            mmio::VIRTIO_MMIO_QUEUE_SEL => core.select_queue(value),
            mmio::VIRTIO_MMIO_QUEUE_NUM => core.set_queue_size(value),
            mmio::VIRTIO_MMIO_QUEUE_READY => core.set_queue_ready(value == 1),
            mmio::VIRTIO_MMIO_QUEUE_NOTIFY => core.notify_queue(value),
            mmio::VIRTIO_MMIO_INTERRUPT_ACK => self.line.acknowledge(value),
            mmio::VIRTIO_MMIO_STATUS => core.set_status(value),
            mmio::VIRTIO_MMIO_QUEUE_DESC_LOW => core.set_queue_address(Descriptor, Low, value),
            mmio::VIRTIO_MMIO_QUEUE_DESC_HIGH => core.set_queue_address(Descriptor, High, value),
            mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW => core.set_queue_address(Driver, Low, value),
            mmio::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => core.set_queue_address(Driver, High, value),
            mmio::VIRTIO_MMIO_QUEUE_USED_LOW => core.set_queue_address(Device, Low, value),
            mmio::VIRTIO_MMIO_QUEUE_USED_HIGH => core.set_queue_address(Device, High, value),
            _ => {}
        }
    }
}

impl Transport for MmioTransport {
    fn core(&self) -> &Arc<TransportCore> {
        &self.core
    }

    fn save(&self) -> Result<VirtioStateV1, StateError> {
        let Self { core, line } = self;
        core.save(BusState::MmioV1(MmioStateV1 { interrupt_status: line.status() }))
    }

    fn restore(&self, state: &VirtioStateV1) -> Result<(), StateError> {
        let Self { core, line } = self;
        let BusState::MmioV1(MmioStateV1 { interrupt_status }) = state.bus else {
            return Err(StateError::new("the state is of a device on PCI, and this one is on virtio-mmio"));
        };
        line.restore(interrupt_status)?;
        core.restore(state)
    }
}

/// The register that an access at `offset` means, if it is one below the configuration space.
fn register(offset: u64) -> Option<u32> {
    u32::try_from(offset).ok().filter(|register| register % 4 == 0)
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG_OFFSET) {
            self.core.read_config(offset, data);
        } else if let (Some(register), Ok(data)) = (register(offset), <&mut [u8; 4]>::try_from(data)) {
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> BusAction {
        if let Some(offset) = offset.checked_sub(CONFIG_OFFSET) {
            self.core.write_config(offset, data);
        } else if let (Some(register), Ok(data)) = (register(offset), <[u8; 4]>::try_from(data)) {
            self.write_register(register, u32::from_le_bytes(data));
        }
        BusAction::None
    }
}
