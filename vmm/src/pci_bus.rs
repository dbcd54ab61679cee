//! The PCI bus of a VM: where its functions are, and how they reach KVM.
//!
//! Interrupts are handed to KVM one by one (`KVM_SIGNAL_MSI`), with the address and data that the guest gave: there are no
//! routes, so a guest that writes to a vector's entry does not have KVM's table of routes replaced, which waits for a
//! grace period of the host's kernel.

use std::io;
use std::sync::Arc;

use devices::GuestMemory;
use devices::bus::BusError;
use devices::interrupt::MsiSender;
use devices::pci::root::{ECAM_SIZE, Ecam, MAX_DEVICES, RootBus, Window};
use devices::pci::{Doorbell, Doorbells, Space};
use devices::virtio::device::SharedDevice;
use devices::virtio::transport::pci::{MAX_IO_SIZE, MEMORY_SIZE, PciPlace, PciTransport};
use kvm_bindings::kvm_msi;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::kvm::{self, KvmError};
use crate::layout;
use crate::vcpu::Buses;

// Each function has its place in the windows.
const _: () = {
    let devices = MAX_DEVICES as u32;
    assert!(devices * MEMORY_SIZE <= layout::PCI_MEMORY_SIZE);
    assert!(devices * MAX_IO_SIZE <= layout::PCI_IO_SIZE as u32);
};

/// The bus while it is built.
#[derive(Default)]
pub(crate) struct PciBus {
    bus: RootBus,
    devices: u32,
}

/// A function could not be put on the bus.
pub(crate) enum PciBusError {
    /// The host refused an eventfd, or the bus is full.
    Host(io::Error),
    /// KVM refused a doorbell.
    Kvm(KvmError),
}

impl PciBus {
    /// Puts `device` on the bus, at the next device number.
    pub(crate) fn add(
        &mut self,
        device: SharedDevice,
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
    ) -> Result<Arc<PciTransport>, PciBusError> {
        let kvm = Arc::new(Kvm(Arc::clone(vm)));
        let place = PciPlace {
            memory: layout::PCI_MEMORY_START + self.devices * MEMORY_SIZE,
            io: layout::PCI_IO_START + (self.devices * MAX_IO_SIZE) as u16,
            msi: kvm.clone(),
            doorbells: kvm,
        };
        let function = PciTransport::new(memory.clone(), device, place).map_err(PciBusError::Host)?;
        for (doorbell, event) in function.doorbells() {
            vm.register_ioevent(event, &address(doorbell), NoDatamatch)
                .map_err(kvm::failed("KVM_IOEVENTFD"))
                .map_err(PciBusError::Kvm)?;
        }
        let function = Arc::new(function);
        if !self.bus.add(function.clone()) {
            return Err(PciBusError::Host(io::Error::other("the PCI bus is full")));
        }
        self.devices += 1;
        Ok(function)
    }

    /// Puts the bus, which is complete, where the guest finds it.
    pub(crate) fn connect(self, buses: &mut Buses) -> Result<(), BusError> {
        let memory = Window::new(self.bus.clone(), Space::Memory, layout::PCI_MEMORY_START.into());
        buses.mmio.insert(
            layout::PCI_MEMORY_START.into(),
            layout::PCI_MEMORY_SIZE.into(),
            Arc::new(memory),
        )?;
        let io = Window::new(self.bus.clone(), Space::Io, layout::PCI_IO_START.into());
        buses.pio.insert(layout::PCI_IO_START.into(), layout::PCI_IO_SIZE.into(), Arc::new(io))?;
        buses.mmio.insert(layout::PCI_ECAM_START.into(), ECAM_SIZE, Arc::new(Ecam::new(self.bus)))
    }
}

fn address(doorbell: Doorbell) -> IoEventAddress {
    match doorbell.space {
        Space::Memory => IoEventAddress::Mmio(doorbell.address),
        Space::Io => IoEventAddress::Pio(doorbell.address),
    }
}

/// The VM, as far as functions use it.
struct Kvm(Arc<VmFd>);

impl MsiSender for Kvm {
    fn send(&self, address: u64, data: u32) -> io::Result<()> {
        let msi = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..Default::default()
        };
        self.0.signal_msi(msi).map(drop).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

impl Doorbells for Kvm {
    fn disconnect(&self, doorbell: Doorbell, event: &EventFd) {
        if let Err(error) = self.0.unregister_ioevent(event, &address(doorbell), NoDatamatch) {
            log::warn!("a doorbell at {:#x} cannot be disconnected: {error}", doorbell.address);
        }
    }
}
