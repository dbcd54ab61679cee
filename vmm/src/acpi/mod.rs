//! ACPI tables that describe the machine to the guest.
//!
//! The machine is hardware-reduced (ACPI 6.5, 4.1): no power management timer, no SCI, no fixed hardware but the sleep
//! and reset registers, so a guest finds everything in one pass over a short DSDT and waits for nothing. All tables
//! together are about 800 bytes and 70 more for each virtio device: one page, commonly.

mod dsdt;
mod events;
mod pci;
mod tables;

#[cfg(test)]
mod tests;

use devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::layout;

/// Most vCPUs whose APIC ids fit in a "processor local APIC" structure (255 means all of them).
const MAX_VCPUS: u32 = 255;

/// A virtio-mmio device in the guest's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// First guest-physical address of its registers.
    pub base: u64,
    /// Size of its registers and configuration space, in bytes.
    pub size: u64,
    /// Its global system interrupt, edge-triggered.
    pub gsi: u32,
}

/// What the tables tell of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine<'a> {
    /// Number of vCPUs; their APIC ids are 0 and on.
    pub vcpus: u32,
    /// The virtio-mmio devices, in the order in which the guest is to number them.
    pub virtio_mmio: &'a [VirtioMmio],
    /// Whether there is a PCI bus.
    pub pci: bool,
    /// Whether COM1 is there.
    pub serial: bool,
    /// Whether the i8042 keyboard controller is there.
    pub keyboard: bool,
}

/// The machine can't be described.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// Too many or too few vCPUs.
    #[error("{0} vCPUs: ACPI tables can name 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    /// A device is where a 32-bit resource can't name it.
    #[error("virtio device at {base:#x} of {size:#x} bytes: it has to be below 4 GiB")]
    DeviceAddress {
        /// First guest-physical address.
        base: u64,
        /// Size in bytes.
        size: u64,
    },
    /// More devices than the room for tables takes.
    #[error("ACPI tables of {size} bytes for {devices} virtio devices: there is room for {room} bytes")]
    TooLarge {
        /// Size of all tables in bytes.
        size: usize,
        /// Number of devices.
        devices: usize,
        /// Room in bytes.
        room: u64,
    },
    /// The guest's memory ends before the place for the tables.
    #[error(
        "ACPI tables of {size} bytes at {:#x} are not in guest memory; give the guest 1M or more",
        layout::ACPI_START
    )]
    Memory {
        /// Size of all tables in bytes.
        size: usize,
        /// The failed access.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Writes the tables to [`layout::ACPI_START`] and returns the guest-physical address of the root pointer (RSDP).
pub fn write_tables(memory: &GuestMemory, machine: &Machine) -> Result<u64, AcpiError> {
    if machine.vcpus == 0 || machine.vcpus > MAX_VCPUS {
        return Err(AcpiError::Vcpus(machine.vcpus));
    }
    let dsdt = dsdt::build(machine)?;
    let tables = tables::build(machine, dsdt.as_slice(), layout::ACPI_START);
    let room = layout::ACPI_END - layout::ACPI_START;
    let size = tables.len();
    if size as u64 > room {
        return Err(AcpiError::TooLarge { size, devices: machine.virtio_mmio.len(), room });
    }
    memory
        .write_slice(&tables, GuestAddress(layout::ACPI_START))
        .map_err(|source| AcpiError::Memory { size, source })?;
    Ok(layout::ACPI_START)
}
