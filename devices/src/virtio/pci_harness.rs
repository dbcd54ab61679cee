//! The registers of a virtio-pci function under virtio-mmio's names, so that one mock driver drives both transports.
//!
//! For tests and fuzz targets, as [`super::queue_harness`] is.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what cannot be ends the test that uses this"
)]

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_mmio as mmio;
use vmm_sys_util::eventfd::EventFd;

use super::device::SharedDevice;
use super::transport::Transport;
use super::transport::pci::{PciPlace, PciTransport};
use crate::interrupt::FakeMsi;
use crate::pci::config_space::{BAR0, COMMAND};
use crate::pci::{Doorbell, Doorbells, PciFunction, Space};
use crate::{GuestMemory, lock};

/// Where the function's memory is.
pub const MEMORY_BASE: u32 = 0xd000_4000;
/// Where its ports are.
pub const IO_BASE: u16 = 0x1080;
/// What the driver has vectors send to; vector N sends N.
pub const MSI_ADDRESS: u64 = 0xfee0_1000;

// Offsets in BAR 0.
const DEVICE_CONFIG: u64 = 0x1000;
const MSIX_TABLE: u64 = 0x2000;
/// Capability ID of MSI-X, and where its Message Control is in the capability.
const MSIX: u8 = 0x11;
const MSIX_CONTROL: usize = 2;

/// Remembers which doorbells were disconnected.
#[derive(Default)]
pub struct FakeDoorbells(Mutex<Vec<Doorbell>>);

impl FakeDoorbells {
    /// The doorbells that were disconnected so far.
    pub fn disconnected(&self) -> Vec<Doorbell> {
        lock(&self.0).clone()
    }
}

impl Doorbells for FakeDoorbells {
    fn disconnect(&self, doorbell: Doorbell, _: &EventFd) {
        lock(&self.0).push(doorbell);
    }
}

/// A function that is switched on, with MSI-X.
pub struct PciRegisters {
    function: PciTransport,
    msi: Arc<FakeMsi>,
    doorbells: Arc<FakeDoorbells>,
}

impl PciRegisters {
    /// A function for `device`, switched on.
    pub fn new(memory: GuestMemory, device: SharedDevice) -> Self {
        let (msi, doorbells) = (Arc::new(FakeMsi::default()), Arc::new(FakeDoorbells::default()));
        let place =
            PciPlace { memory: MEMORY_BASE, io: IO_BASE, msi: msi.clone(), doorbells: doorbells.clone() };
        let this = Self { function: PciTransport::new(memory, device, place).unwrap(), msi, doorbells };
        this.switch_on();
        this
    }

    /// Has the function answer where it did at first, whatever was done to it, and MSI-X send.
    pub fn switch_on(&self) {
        let bars = [MEMORY_BASE.to_le_bytes(), u32::from(IO_BASE).to_le_bytes()];
        let _ = self.function.write_config(BAR0, bars.as_flattened());
        let _ = self.function.write_config(COMMAND, &[7, 0]);
        let msix = self.capabilities().into_iter().find(|(id, _)| *id == MSIX).unwrap().1;
        let _ = self.function.write_config(msix + MSIX_CONTROL, &[0, 0x80]);
        for vector in 0..=self.function.core().queue_count() as u32 {
            for (word, value) in (0..).zip([MSI_ADDRESS as u32, 0, vector, 0]) {
                self.write_memory(MSIX_TABLE + 16 * u64::from(vector) + 4 * word, &value.to_le_bytes());
            }
        }
    }

    /// The capabilities in their order: ID and offset.
    pub fn capabilities(&self) -> Vec<(u8, usize)> {
        let mut found = Vec::new();
        let mut next = [0; 2];
        self.function.read_config(0x34, &mut next);
        let mut offset = usize::from(next[0]);
        while offset != 0 && found.len() < 64 {
            self.function.read_config(offset, &mut next);
            found.push((next[0], offset));
            offset = usize::from(next[1]);
        }
        found
    }

    /// Gives the configuration vector 0, and virtqueue N vector N + 1.
    pub fn assign_vectors(&self) {
        self.write_memory(0x10, &0u16.to_le_bytes());
        for queue in 0..self.function.core().queue_count() as u16 {
            self.write_memory(0x16, &queue.to_le_bytes());
            self.write_memory(0x1a, &(queue + 1).to_le_bytes());
        }
    }

    /// The function.
    pub fn function(&self) -> &PciTransport {
        &self.function
    }

    /// The messages that it sent.
    pub fn msi(&self) -> &FakeMsi {
        &self.msi
    }

    /// Its doorbells.
    pub fn doorbells(&self) -> &FakeDoorbells {
        &self.doorbells
    }

    /// Fills `data` from `offset` of BAR 0.
    pub fn read_memory(&self, offset: u64, data: &mut [u8]) {
        assert!(self.function.read(Space::Memory, u64::from(MEMORY_BASE) + offset, data));
    }

    /// Writes `data` at `offset` of BAR 0.
    pub fn write_memory(&self, offset: u64, data: &[u8]) {
        assert!(self.function.write(Space::Memory, u64::from(MEMORY_BASE) + offset, data).is_some());
    }

    /// Fills `data` from the device's configuration space.
    pub fn config(&self, offset: u64, data: &mut [u8]) {
        self.read_memory(DEVICE_CONFIG + offset, data);
    }

    /// Writes `data` to the device's configuration space.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        self.write_memory(DEVICE_CONFIG + offset, data);
    }

    /// Reads the register that virtio-mmio has at this offset; 0 when virtio-pci has none.
    pub fn read(&self, register: u32) -> u32 {
        let mut data = [0; 4];
        if let Some((offset, width)) = place(register) {
            self.read_memory(offset, data.get_mut(..width).unwrap());
        }
        u32::from_le_bytes(data)
    }

    /// Writes the register that virtio-mmio has at this offset; nothing when virtio-pci has none.
    pub fn write(&self, register: u32, value: u32) {
        if register == mmio::VIRTIO_MMIO_QUEUE_NOTIFY {
            let port = u64::from(IO_BASE) + 2 * u64::from(value);
            let _ = self.function.write(Space::Io, port, &(value as u16).to_le_bytes());
        } else if let Some((offset, width)) = place(register) {
            self.write_memory(offset, value.to_le_bytes().get(..width).unwrap());
        }
    }
}

/// Where virtio-pci has what virtio-mmio has at `register`, and how wide it is.
fn place(register: u32) -> Option<(u64, usize)> {
    Some(match register {
        mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL => (0x00, 4),
        mmio::VIRTIO_MMIO_DEVICE_FEATURES => (0x04, 4),
        mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL => (0x08, 4),
        mmio::VIRTIO_MMIO_DRIVER_FEATURES => (0x0c, 4),
        mmio::VIRTIO_MMIO_STATUS => (0x14, 1),
        mmio::VIRTIO_MMIO_CONFIG_GENERATION => (0x15, 1),
        mmio::VIRTIO_MMIO_QUEUE_SEL => (0x16, 2),
        mmio::VIRTIO_MMIO_QUEUE_NUM | mmio::VIRTIO_MMIO_QUEUE_NUM_MAX => (0x18, 2),
        mmio::VIRTIO_MMIO_QUEUE_READY => (0x1c, 2),
        mmio::VIRTIO_MMIO_QUEUE_DESC_LOW => (0x20, 4),
        mmio::VIRTIO_MMIO_QUEUE_DESC_HIGH => (0x24, 4),
        mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW => (0x28, 4),
        mmio::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => (0x2c, 4),
        mmio::VIRTIO_MMIO_QUEUE_USED_LOW => (0x30, 4),
        mmio::VIRTIO_MMIO_QUEUE_USED_HIGH => (0x34, 4),
        _ => return None,
    })
}
