//! virtio over PCI (virtio 1.3, 4.1), not transitional: decodes configuration space and BARs, no more.
//!
//! BAR 0 is memory with the registers, BAR 1 is ports with the notifications alone: where a write to a port leaves the
//! guest, the hypervisor knows at once what was written where, and for a write to memory it commonly has to decode the
//! guest's instruction. The registers are not in ports, as they matter at the start only. Notifications are in memory as well,
//! for drivers that do not use ports; each is an exit to the VMM there.
//!
//! A notification's address says which virtqueue it is for, and what is written there says nothing: the host can ring the
//! doorbell without looking at it.
//!
//! # Locks
//! Configuration space comes before the registers of [`super::core`].

mod capabilities;
mod common;
mod signal;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_ids::{
    VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_NET, VIRTIO_ID_RNG, VIRTIO_ID_VSOCK,
};
use vmm_sys_util::eventfd::EventFd;

use super::core::TransportCore;
use crate::bus::BusAction;
use crate::interrupt::MsiSender;
use crate::pci::bar::{Bar, BarKind, Decoder};
use crate::pci::config_space::{BAR0, COMMAND, ConfigSpace, Identity};
use crate::pci::msix::{ENTRY_SIZE, Msix};
use crate::pci::{Doorbell, Doorbells, PciFunction, Space};
use crate::virtio::device::SharedDevice;
use crate::{GuestMemory, lock};
use capabilities::{Capabilities, CapabilityList, ConfigAccess, Structure};
use signal::PciSignal;
pub use state::PciStateV1;

/// Size of BAR 0, in bytes.
pub const MEMORY_SIZE: u32 = 0x4000;
/// Most bytes of ports that BAR 1 takes.
pub const MAX_IO_SIZE: u32 = NOTIFY_MULTIPLIER * MAX_QUEUES as u32;
/// Most virtqueues that a device can have.
pub const MAX_QUEUES: usize = 64;

const MEMORY_BAR: u8 = 0;
const IO_BAR: u8 = 1;
/// Ports from one queue's notification to the next (`notify_off_multiplier`).
const NOTIFY_MULTIPLIER: u32 = 2;
/// Bytes from one queue's notification in memory to the next.
const MEMORY_NOTIFY_MULTIPLIER: u32 = 4;

// BAR 0.
const COMMON: u32 = 0;
const ISR: u32 = 0x100;
const DEVICE: u32 = 0x1000;
const DEVICE_SIZE: u32 = 0x1000;
const MSIX_TABLE: u32 = 0x2000;
const MSIX_PENDING: u32 = 0x2800;
const NOTIFY: u32 = 0x3000;
const _: () = assert!(NOTIFY + MAX_QUEUES as u32 * MEMORY_NOTIFY_MULTIPLIER <= MEMORY_SIZE);
const _: () = assert!(MSIX_TABLE as u64 + (MAX_QUEUES as u64 + 1) * ENTRY_SIZE <= MSIX_PENDING as u64);

/// Vendor of every virtio device (4.1.2).
const VENDOR: u16 = 0x1af4;
/// Device ID of a device that is not transitional, less its device type.
const DEVICE_ID: u16 = 0x1040;
/// At least this in a device that is not transitional (4.1.2.1).
const REVISION: u8 = 1;
const SUBSYSTEM: u16 = 0x40;

/// Where a function is and what it reaches the VM by.
pub struct PciPlace {
    /// Address of BAR 0, [`MEMORY_SIZE`] bytes.
    pub memory: u32,
    /// First port of BAR 1, [`MAX_IO_SIZE`] at most.
    pub io: u16,
    /// Delivers interrupts.
    pub msi: Arc<dyn MsiSender>,
    /// What the doorbells are connected to.
    pub doorbells: Arc<dyn Doorbells>,
}

/// A virtio device as a PCI function.
pub struct PciTransport {
    core: Arc<TransportCore>,
    signal: Arc<PciSignal>,
    configuration: Mutex<Configuration>,
    memory: Decoder,
    io: Decoder,
    /// Where BAR 0 is at first.
    first_address: u32,
    /// The first port as the host knows it.
    first_port: u16,
    /// Whether the host takes notifications there.
    connected: AtomicBool,
    doorbells: Arc<dyn Doorbells>,
}

impl PciTransport {
    /// Shows `device`, whose queues will lie in `memory`, at `place`. The host is to connect its
    /// [doorbells](Self::doorbells).
    ///
    /// # Errors
    /// When the host gives no eventfd for a queue, or the device has more than [`MAX_QUEUES`].
    pub fn new(memory: GuestMemory, device: SharedDevice, place: PciPlace) -> io::Result<Self> {
        let PciPlace { memory: memory_base, io: io_base, msi, doorbells } = place;
        let queues = lock(&device).queue_max_sizes().len();
        let vectors = u16::try_from(queues + 1).ok().filter(|_| queues <= MAX_QUEUES);
        let vectors = vectors.ok_or_else(|| {
            io::Error::other(format!("{queues} virtqueues: a PCI function has {MAX_QUEUES} at most"))
        })?;
        let signal = Arc::new(PciSignal::new(Msix::new(vectors, msi), queues));
        let core = Arc::new(TransportCore::new(memory, device, signal.clone())?);

        let configuration =
            Configuration::new(CapabilityList::Current, &core, signal.msix(), memory_base, io_base);
        let io_size = io_size(queues);
        Ok(Self {
            core,
            signal,
            configuration: Mutex::new(configuration),
            memory: Decoder::new(None, MEMORY_SIZE),
            io: Decoder::new(None, io_size),
            first_address: memory_base,
            first_port: io_base,
            connected: AtomicBool::new(true),
            doorbells,
        })
    }

    /// Where a write of any width and value notifies which virtqueue's eventfd, as long as BAR 1 stays where it is.
    pub fn doorbells(&self) -> impl Iterator<Item = (Doorbell, &EventFd)> {
        let ports = (u64::from(self.first_port)..).step_by(NOTIFY_MULTIPLIER as usize);
        let doorbells = ports.map(|address| Doorbell { space: Space::Io, address });
        doorbells.zip(self.core.queue_events())
    }

    /// Follows what the guest wrote to Command and the BARs.
    fn follow_bars(&self, config: &ConfigSpace) {
        let (memory, io) = (config.bar_address(MEMORY_BAR.into()), config.bar_address(IO_BAR.into()));
        self.memory.set(memory);
        self.io.set(io);
        // A BAR that is switched off while it is sized has not moved.
        let moved = io.is_some_and(|io| io != u32::from(self.first_port));
        // Connecting them where they are now would let a guest have the host's kernel wait again and again. From here on
        // each notification is an exit.
        if moved && self.connected.swap(false, Ordering::SeqCst) {
            self.doorbells().for_each(|(doorbell, event)| self.doorbells.disconnect(doorbell, event));
        }
    }

    fn read_memory(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match Area::of(offset) {
            Area::Common(offset) => common::read(&self.core, &self.signal, offset, data),
            Area::Isr => data.iter_mut().take(1).for_each(|data| *data = self.signal.take_isr()),
            Area::Device(offset) => self.core.read_config(offset, data),
            Area::MsixTable(offset) => self.signal.msix().read_table(offset, data),
            Area::MsixPending(offset) => self.signal.msix().read_pending(offset, data),
            Area::Notify(_) | Area::Nothing => {}
        }
    }

    fn write_memory(&self, offset: u64, data: &[u8]) {
        match Area::of(offset) {
            Area::Common(offset) => common::write(&self.core, &self.signal, offset, data),
            Area::Device(offset) => self.core.write_config(offset, data),
            Area::MsixTable(offset) => self.signal.msix().write_table(offset, data),
            Area::Notify(offset) => self.notify(offset, MEMORY_NOTIFY_MULTIPLIER),
            Area::Isr | Area::MsixPending(_) | Area::Nothing => {}
        }
    }

    /// Takes a write at `offset` of the notifications, which are `multiplier` bytes apart.
    fn notify(&self, offset: u64, multiplier: u32) {
        if offset.is_multiple_of(multiplier.into()) {
            self.core.notify_queue((offset / u64::from(multiplier)) as u32);
        }
    }

    /// Does the access that VIRTIO_PCI_CAP_PCI_CFG describes (4.1.4.9), if it is one.
    fn config_access(&self, access: ConfigAccess, data: &mut [u8; 4], write: bool) {
        let ConfigAccess { bar, offset, length } = access;
        let Some(data) = data.get_mut(..length) else { return };
        match (bar, write) {
            (MEMORY_BAR, false) => self.read_memory(offset.into(), data),
            (MEMORY_BAR, true) => self.write_memory(offset.into(), data),
            (IO_BAR, true) => self.notify(offset.into(), NOTIFY_MULTIPLIER),
            _ => {}
        }
    }
}

/// Ports of BAR 1.
fn io_size(queues: usize) -> u32 {
    (NOTIFY_MULTIPLIER * queues as u32).next_power_of_two().max(4)
}

/// Configuration space, and which capabilities are in it.
struct Configuration {
    space: ConfigSpace,
    capabilities: Capabilities,
}

impl Configuration {
    /// That of a function that no guest has touched.
    fn new(list: CapabilityList, core: &TransportCore, msix: &Msix, memory: u32, io: u16) -> Self {
        let (device_type, queues) = (core.device_type(), core.queue_count());
        let mut space = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: DEVICE_ID + device_type as u16,
            subsystem: SUBSYSTEM + device_type as u16,
            class: class(device_type),
            revision: REVISION,
        });
        let memory_bar = Bar { kind: BarKind::Memory, address: memory, size: MEMORY_SIZE };
        let io_bar = Bar { kind: BarKind::Io, address: io.into(), size: io_size(queues) };
        space.add_bar(MEMORY_BAR.into(), memory_bar);
        space.add_bar(IO_BAR.into(), io_bar);
        let queues = queues as u32;
        let notify = Structure { bar: IO_BAR, offset: 0, length: NOTIFY_MULTIPLIER * queues };
        // The entropy device has no configuration of its own.
        let has_config = list == CapabilityList::First || device_type != VIRTIO_ID_RNG;
        let capabilities = Capabilities::add(&mut space, list, has_config, msix, queues, notify);
        Self { space, capabilities }
    }
}

/// What an offset in BAR 0 means.
enum Area {
    Common(u64),
    Isr,
    Device(u64),
    MsixTable(u64),
    MsixPending(u64),
    Notify(u64),
    Nothing,
}

impl Area {
    fn of(offset: u64) -> Self {
        const fn at(offset: u32) -> u64 {
            offset as u64
        }
        match offset {
            _ if offset < at(ISR) => Self::Common(offset - at(COMMON)),
            _ if offset == at(ISR) => Self::Isr,
            _ if offset < at(DEVICE) => Self::Nothing,
            _ if offset < at(MSIX_TABLE) => Self::Device(offset - at(DEVICE)),
            _ if offset < at(MSIX_PENDING) => Self::MsixTable(offset - at(MSIX_TABLE)),
            _ if offset < at(NOTIFY) => Self::MsixPending(offset - at(MSIX_PENDING)),
            _ if offset < at(MEMORY_SIZE) => Self::Notify(offset - at(NOTIFY)),
            _ => Self::Nothing,
        }
    }
}

impl PciFunction for PciTransport {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut configuration = lock(&self.configuration);
        let Configuration { space, capabilities } = &mut *configuration;
        if let Some(access) = capabilities.config_access(space, offset, data.len()) {
            let mut value = [0; 4];
            self.config_access(access, &mut value, false);
            space.store(capabilities.config_data(), &value);
        }
        space.read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> BusAction {
        let mut configuration = lock(&self.configuration);
        let Configuration { space, capabilities } = &mut *configuration;
        space.write(offset, data);
        if let Some(access) = capabilities.config_access(space, offset, data.len()) {
            let mut value = space.u32(capabilities.config_data()).to_le_bytes();
            self.config_access(access, &mut value, true);
        }
        let end = offset.saturating_add(data.len());
        if offset < COMMAND + 2 && end > COMMAND || offset < BAR0 + 8 && end > BAR0 {
            self.follow_bars(space);
        }
        let control = capabilities.msix_control();
        if offset < control + 2 && end > control {
            self.signal.msix().set_control(space.u16(control));
        }
        BusAction::None
    }

    fn read(&self, space: Space, address: u64, data: &mut [u8]) -> bool {
        match space {
            Space::Memory => {
                self.memory.offset(address, data.len()).map(|offset| self.read_memory(offset, data)).is_some()
            }
            Space::Io => self.io.offset(address, data.len()).map(|_| data.fill(0)).is_some(),
        }
    }

    fn write(&self, space: Space, address: u64, data: &[u8]) -> Option<BusAction> {
        match space {
            Space::Memory => self.write_memory(self.memory.offset(address, data.len())?, data),
            Space::Io => self.notify(self.io.offset(address, data.len())?, NOTIFY_MULTIPLIER),
        }
        Some(BusAction::None)
    }
}

/// Class code (PCI Code and ID Assignment, 1.x) by device type: what tools show; no driver needs it.
fn class(device_type: u32) -> u32 {
    match device_type {
        // Ethernet controller.
        VIRTIO_ID_NET => 0x02_0000,
        // Other mass storage controller.
        VIRTIO_ID_BLOCK => 0x01_8000,
        // Other communication device.
        VIRTIO_ID_CONSOLE | VIRTIO_ID_VSOCK => 0x07_8000,
        // Fits no class.
        _ => 0xff_0000,
    }
}
