//! The one place that knows which kinds of devices there are: it makes them from the configuration, gives each its
//! addresses and interrupt, and puts it on a bus.

pub(crate) mod state;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::GuestMemory;
use devices::bus::{BusDevice, BusError};
use devices::interrupt::Interrupt;
use devices::legacy::acpi_events::AcpiEvents;
use devices::legacy::acpi_power::AcpiPower;
use devices::legacy::boot_timer::{BootTimer, Moment};
use devices::legacy::i8042::I8042;
use devices::legacy::pvpanic::Pvpanic;
use devices::legacy::serial::Serial;
use devices::mmds::{Mmds, MmdsStore};
use devices::virtio::balloon::{BalloonDevice, BalloonError};
use devices::virtio::block::{BlockDevice, BlockError};
use devices::virtio::console::ConsoleDevice;
use devices::virtio::device::SharedDevice;
use devices::virtio::net::{NetDevice, NetError, VhostNetDevice};
use devices::virtio::rng::RngDevice;
use devices::virtio::transport::Transport as VirtioTransport;
use devices::virtio::transport::core::TransportCore;
use devices::virtio::transport::mmio::MmioTransport;
use devices::virtio::vsock::{VsockDevice, VsockError};
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::acpi::VirtioMmio;
use crate::config::{Transport, VmConfig};
use crate::console::{Output, Port};
use crate::kvm::irq_line::IrqLine;
use crate::kvm::{self, KvmError};
use crate::layout;
use crate::metrics::{Registry, Source};
use crate::pci_bus::{PciBus, PciBusError};
use crate::vcpu::Buses;

/// Why the devices could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceSetError {
    /// A drive that cannot be used.
    #[error("drive \"{id}\"")]
    Drive {
        /// Its id.
        id: String,
        /// What is wrong.
        #[source]
        source: BlockError,
    },
    /// A network interface that cannot be used.
    #[error("network interface \"{id}\"")]
    Net {
        /// Its id.
        id: String,
        /// What is wrong.
        #[source]
        source: NetError,
    },
    /// A balloon that cannot be made.
    #[error(transparent)]
    Balloon(#[from] BalloonError),
    /// A socket device that cannot be.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// The host has no descriptor or memory left.
    #[error("cannot make {what}")]
    Host {
        /// What was to be made.
        what: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// KVM refused an interrupt or a notification.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Two devices at one address.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl From<PciBusError> for DeviceSetError {
    fn from(error: PciBusError) -> Self {
        match error {
            PciBusError::Host(source) => Self::Host { what: "a PCI function", source },
            PciBusError::Kvm(error) => Self::Kvm(error),
        }
    }
}

/// A virtio device and where the guest finds it.
pub struct VirtioSlot {
    /// Its kind, and its id if there can be several of that: `drive "rootfs"`.
    name: String,
    /// How the guest reaches it, to be saved and restored.
    transport: Arc<dyn VirtioTransport>,
    /// The device, whichever transport shows it.
    pub core: Arc<TransportCore>,
    /// Its addresses and its interrupt, when it is not on the PCI bus.
    pub place: Option<VirtioMmio>,
}

/// All devices of one VM.
pub struct DeviceSet {
    /// COM1, the console.
    pub serial: Arc<Serial>,
    /// Keyboard controller: reset and Ctrl-Alt-Del.
    pub i8042: Arc<I8042>,
    /// What the guest's kernel tells of its panic.
    pub pvpanic: Arc<Pvpanic>,
    /// Sleep control, by which the guest powers itself off.
    acpi_power: Arc<AcpiPower>,
    /// What the guest is told of by ACPI: the power button.
    pub acpi_events: Arc<AcpiEvents>,
    /// The boot timer, once it is added.
    boot_timer: Option<Arc<BootTimer>>,
    /// The virtio devices, in the order of their addresses.
    pub virtio: Vec<VirtioSlot>,
    /// Where the first virtio-mmio device is.
    mmio_start: u64,
    /// The PCI bus, while it is built; none with virtio-mmio.
    pci: Option<PciBus>,
    /// Drives by their ids, to be changed while the guest runs.
    pub drives: Vec<(String, Arc<Mutex<BlockDevice>>)>,
    /// Network interfaces by their ids, to be changed while the guest runs; one of vhost-net has nothing to change.
    pub nets: Vec<(String, Arc<Mutex<NetDevice>>)>,
    /// The entropy device.
    pub entropy: Option<Arc<Mutex<RngDevice>>>,
    /// The balloon, to be resized and asked for statistics while the guest runs.
    pub balloon: Option<Arc<Mutex<BalloonDevice>>>,
    /// The virtio console.
    pub console: Option<Arc<Mutex<ConsoleDevice>>>,
    /// The socket device.
    pub vsock: Option<Arc<Mutex<VsockDevice>>>,
    /// What all of them count.
    pub metrics: Registry,
}

/// Locks a device. A thread that panicked while it held the lock has ended the process (`panic = "abort"`).
pub(crate) fn lock<T>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An interrupt that KVM injects by itself when its eventfd is written.
struct Irqfd(EventFd);

impl Interrupt for Irqfd {
    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Registers an edge-triggered interrupt with KVM, for a device that a vCPU makes raise it within its own exit. Raised by
/// [`IrqLine`] there, a Debian guest was seen to spin for ever while it set up its serial port and keyboard.
fn irqfd(vm: &VmFd, gsi: u32) -> Result<Arc<dyn Interrupt>, DeviceSetError> {
    let eventfd = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        .map_err(|source| DeviceSetError::Host { what: "an interrupt's eventfd", source })?;
    vm.register_irqfd(&eventfd, gsi).map_err(kvm::failed("KVM_IRQFD"))?;
    Ok(Arc::new(Irqfd(eventfd)))
}

impl DeviceSet {
    /// Starts what devices have to do with outside of this process, and would start when a driver is there.
    ///
    /// # Errors
    /// [`DeviceSetError`], naming the device.
    pub(crate) fn start_backends(&self) -> Result<(), DeviceSetError> {
        for (id, net) in &self.nets {
            lock(net).start_backend().map_err(|source| DeviceSetError::Net { id: id.clone(), source })?;
        }
        Ok(())
    }

    /// Whether the guest has written to a console.
    pub(crate) fn has_written(&self) -> bool {
        let console = self.console.as_ref().map_or(0, |console| lock(console).metrics().output_bytes.get());
        self.serial.metrics().output_bytes.get() > 0 || console > 0
    }

    /// Makes the devices that `config` names and puts them on `buses`. Guest memory must have its slots already: one
    /// that is added after the first interrupt or notification costs milliseconds.
    ///
    /// # Errors
    /// [`DeviceSetError`], naming the device.
    pub fn create(
        config: &VmConfig,
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
        console: &Output,
        metadata: &Arc<MmdsStore>,
        buses: &mut Buses,
    ) -> Result<Self, DeviceSetError> {
        let serial = Arc::new(Serial::new(irqfd(vm, layout::SERIAL_GSI)?, Box::new(console.clone())));
        let i8042 = Arc::new(I8042::new(irqfd(vm, layout::I8042_GSI)?));
        let pvpanic = Arc::new(Pvpanic::default());
        let acpi_power = Arc::new(AcpiPower::new());
        let acpi_events = Arc::new(AcpiEvents::new(Arc::new(IrqLine::new(vm, layout::ACPI_EVENTS_GSI))));
        let pio: [(u16, u16, Arc<dyn BusDevice>); 5] = [
            (layout::SERIAL_PORT, layout::SERIAL_PORT_SIZE, serial.clone()),
            (layout::I8042_PORT, layout::I8042_PORT_SIZE, i8042.clone()),
            (layout::ACPI_POWER_PORT, layout::ACPI_POWER_PORT_SIZE, acpi_power.clone()),
            (layout::ACPI_EVENTS_PORT, layout::ACPI_EVENTS_PORT_SIZE, acpi_events.clone()),
            (layout::PVPANIC_PORT, layout::PVPANIC_PORT_SIZE, pvpanic.clone()),
        ];
        for (base, len, device) in pio {
            buses.pio.insert(u64::from(base), u64::from(len), device)?;
        }

        let pci = match config.transport() {
            Transport::Mmio => None,
            Transport::Pci => Some(PciBus::default()),
        };
        let mut set = Self {
            serial,
            i8042,
            pvpanic,
            acpi_power,
            acpi_events,
            boot_timer: None,
            virtio: Vec::new(),
            mmio_start: layout::VIRTIO_MMIO_START
                + if config.boot_timer { layout::BOOT_TIMER_SIZE } else { 0 },
            pci,
            drives: Vec::new(),
            nets: Vec::new(),
            entropy: None,
            balloon: None,
            console: None,
            vsock: None,
            metrics: Registry::default(),
        };
        set.metrics.add("uart", set.serial.metrics());
        set.metrics.add("i8042", set.i8042.metrics());
        set.metrics.add("pvpanic", set.pvpanic.metrics());
        for drive in config.drives_in_order() {
            let device = BlockDevice::open(drive)
                .map_err(|source| DeviceSetError::Drive { id: drive.drive_id.clone(), source })?;
            let metrics = device.metrics();
            let device = Arc::new(Mutex::new(device));
            set.add_virtio(device.clone(), vm, memory, buses)?;
            set.measure("block", Some(&drive.drive_id), metrics);
            set.drives.push((drive.drive_id.clone(), device));
        }
        set.add_nets(config, metadata, vm, memory, buses)?;
        if let Some(entropy) = &config.entropy {
            let device = RngDevice::new(entropy)
                .map_err(|source| DeviceSetError::Host { what: "the entropy device's timer", source })?;
            let metrics = device.metrics();
            let device = Arc::new(Mutex::new(device));
            set.add_virtio(device.clone(), vm, memory, buses)?;
            set.measure("entropy", None, metrics);
            set.entropy = Some(device);
        }
        if let Some(balloon) = &config.balloon {
            let device = BalloonDevice::new(balloon, config.machine_config.mem_size_mib)?;
            let metrics = device.metrics();
            let device = Arc::new(Mutex::new(device));
            set.add_virtio(device.clone(), vm, memory, buses)?;
            set.measure("balloon", None, metrics);
            set.balloon = Some(device);
        }
        if config.console.is_some() {
            let device = ConsoleDevice::new(Box::new(console.queued()))
                .map_err(|source| DeviceSetError::Host { what: "a console's eventfds", source })?;
            let metrics = device.metrics();
            let device = Arc::new(Mutex::new(device));
            set.add_virtio(device.clone(), vm, memory, buses)?;
            set.measure("console", None, metrics);
            set.console = Some(device);
        }
        if let Some(vsock) = &config.vsock {
            let device = VsockDevice::new(vsock)?;
            let metrics = device.metrics();
            let device = Arc::new(Mutex::new(device));
            set.add_virtio(device.clone(), vm, memory, buses)?;
            set.measure("vsock", None, metrics);
            set.vsock = Some(device);
        }
        if let Some(pci) = set.pci.take() {
            pci.connect(buses)?;
        }
        Ok(set)
    }

    /// Gives the guest a boot timer that runs since `start`. [`create`](Self::create) has left its place free.
    pub(crate) fn add_boot_timer(&mut self, buses: &mut Buses, start: Moment) -> Result<(), DeviceSetError> {
        let timer = Arc::new(BootTimer::new(start));
        buses.mmio.insert(layout::BOOT_TIMER_START, layout::BOOT_TIMER_SIZE, timer.clone())?;
        self.boot_timer = Some(timer);
        Ok(())
    }

    /// Adds the network interfaces, and the metadata service that some of them may lead to.
    fn add_nets(
        &mut self,
        config: &VmConfig,
        metadata: &Arc<MmdsStore>,
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
        buses: &mut Buses,
    ) -> Result<(), DeviceSetError> {
        let mmds = config.mmds_config.as_ref();
        let mmds = mmds.map(|mmds| (mmds, Arc::new(Mmds::new(mmds, metadata.clone()))));
        if let Some((_, mmds)) = &mmds {
            self.metrics.add("mmds", mmds.metrics());
        }
        for net in &config.network_interfaces {
            let failed = |source| DeviceSetError::Net { id: net.iface_id.clone(), source };
            if net.vhost {
                let device = VhostNetDevice::open(net).map_err(failed)?;
                let metrics = device.metrics();
                self.add_virtio(Arc::new(Mutex::new(device)), vm, memory, buses)?;
                self.measure("net", Some(&net.iface_id), metrics);
                continue;
            }
            let mut device = NetDevice::open(net).map_err(failed)?;
            if let Some((config, mmds)) = &mmds
                && config.network_interfaces.contains(&net.iface_id)
            {
                device.add_detour(mmds.clone()).map_err(failed)?;
            }
            let metrics = device.metrics();
            let device = Arc::new(Mutex::new(device));
            self.add_virtio(device.clone(), vm, memory, buses)?;
            self.measure("net", Some(&net.iface_id), metrics);
            self.nets.push((net.iface_id.clone(), device));
        }
        Ok(())
    }

    fn add_virtio(
        &mut self,
        device: SharedDevice,
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
        buses: &mut Buses,
    ) -> Result<(), DeviceSetError> {
        if let Some(pci) = &mut self.pci {
            let transport = pci.add(device, vm, memory)?;
            self.push(transport, None);
            return Ok(());
        }
        let index = self.virtio.len() as u32;
        let place = VirtioMmio {
            base: self.mmio_start + u64::from(index) * layout::VIRTIO_MMIO_SIZE,
            size: layout::VIRTIO_MMIO_SIZE,
            gsi: layout::VIRTIO_GSI_FIRST + index,
        };
        let interrupt = Arc::new(IrqLine::new(vm, place.gsi));
        let transport = MmioTransport::new(memory.clone(), device, interrupt)
            .map_err(|source| DeviceSetError::Host { what: "a device's eventfds", source })?;
        let transport = Arc::new(transport);
        let notify = IoEventAddress::Mmio(place.base + MmioTransport::QUEUE_NOTIFY_OFFSET);
        for (queue, event) in (0u32..).zip(transport.core().queue_events()) {
            vm.register_ioevent(event, &notify, queue).map_err(kvm::failed("KVM_IOEVENTFD"))?;
        }
        buses.mmio.insert(place.base, place.size, transport.clone())?;
        self.push(transport, Some(place));
        Ok(())
    }

    fn push(&mut self, transport: Arc<dyn VirtioTransport>, place: Option<VirtioMmio>) {
        let core = transport.core().clone();
        self.virtio.push(VirtioSlot { name: String::new(), transport, core, place });
    }

    /// Names the virtio device that was added last, and registers what it counts. A kind of which there can be several has
    /// ids.
    fn measure(&mut self, kind: &'static str, id: Option<&str>, source: Arc<dyn Source>) {
        if let Some(slot) = self.virtio.last_mut() {
            let title = match kind {
                "block" => "drive",
                "net" => "network interface",
                other => other,
            };
            slot.name = id.map_or_else(|| title.to_owned(), |id| format!("{title} \"{id}\""));
            self.metrics.add_virtio(kind, id, source, slot.core.metrics());
        }
    }

    /// Where the guest reads what is typed: the virtio console if it has one, else the serial port.
    pub fn input_port(&self) -> Arc<dyn Port> {
        match &self.console {
            Some(console) => console.clone(),
            None => self.serial.clone(),
        }
    }

    /// Where the virtio-mmio devices are, for the ACPI tables.
    pub fn places(&self) -> Vec<VirtioMmio> {
        self.virtio.iter().filter_map(|slot| slot.place).collect()
    }

    /// Finishes what is in flight and takes every virtio device from its driver, as a reset of the machine does. The
    /// vCPUs are stopped.
    pub fn quiesce(&self) {
        for slot in &self.virtio {
            slot.core.set_status(0);
        }
    }
}
