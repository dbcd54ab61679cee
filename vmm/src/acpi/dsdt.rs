//! The DSDT: devices that a guest can't find by itself, and the power-off state, in AML (ACPI 6.5, chapter 20).

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::tables::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use super::{AcpiError, Machine, VirtioMmio, events, pci};
use crate::layout;

/// `SLP_TYP` of the soft-off state S5, as the power device knows it.
const SLP_TYP_S5: u8 = 5;
/// Size of a table's header in bytes.
const HEADER_SIZE: u32 = 36;

/// The whole table.
pub(super) fn build(machine: &Machine) -> Result<Sdt, AcpiError> {
    let mut body = Vec::with_capacity(1024);
    let mut devices: Vec<Box<dyn Aml>> = Vec::with_capacity(machine.virtio_mmio.len().saturating_add(8));
    if machine.serial {
        devices.push(Box::new(Serial));
    }
    if machine.keyboard {
        devices.push(Box::new(Keyboard));
    }
    devices.push(Box::new(PanicNotifier));
    devices.push(Box::new(events::Counter));
    devices.push(Box::new(events::PowerButton));
    devices.push(Box::new(events::EventDevice));
    if machine.pci {
        devices.push(Box::new(pci::HostBridge));
        devices.push(Box::new(pci::Reservation));
    }
    for (number, device) in machine.virtio_mmio.iter().enumerate() {
        devices.push(Box::new(Virtio::new(number, device)?));
    }
    Scope::new("_SB_".into(), devices.iter().map(|device| &**device as &dyn Aml).collect())
        .to_aml_bytes(&mut body);
    Named(b"_S5_", &Package::new(vec![&SLP_TYP_S5, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut body);

    let mut table = Sdt::new(*b"DSDT", HEADER_SIZE, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    Ok(table)
}

/// An interrupt that only this device uses: edge-triggered, active high.
pub(super) fn interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// `Name (NAME, value)` (ACPI 6.5, 20.2.5.1), written where it is to be: acpi_tables' own is put together on the heap first,
/// which was a third of what the tables take in every start.
pub(super) struct Named<'a>(pub(super) &'a [u8; 4], pub(super) &'a dyn Aml);

/// `NameOp`.
const NAME_OP: u8 = 0x08;

impl Aml for Named<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(NAME_OP);
        sink.vec(self.0);
        self.1.to_aml_bytes(sink);
    }
}

/// COM1, a 16550-compatible serial port.
struct Serial;

impl Aml for Serial {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Device::new(
            "COM1".into(),
            vec![
                &Named(b"_HID", &EISAName::new("PNP0501")),
                &Named(b"_UID", &ZERO),
                &Named(
                    b"_CRS",
                    &ResourceTemplate::new(vec![
                        &IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, layout::SERIAL_PORT_SIZE as u8),
                        &interrupt(layout::SERIAL_GSI),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The keyboard of the i8042 controller. No mouse is named, so a guest need not probe for one.
struct Keyboard;

impl Aml for Keyboard {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let data = layout::I8042_PORT;
        let command = layout::I8042_PORT + layout::I8042_PORT_SIZE - 1;
        Device::new(
            "PS2_".into(),
            vec![
                &Named(b"_HID", &EISAName::new("PNP0303")),
                &Named(
                    b"_CRS",
                    &ResourceTemplate::new(vec![
                        &IO::new(data, data, 1, 1),
                        &IO::new(command, command, 1, 1),
                        &interrupt(layout::I8042_GSI),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The panic notifier, by the name that drivers know it by (QEMU, docs/specs/pvpanic).
struct PanicNotifier;

impl Aml for PanicNotifier {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let port = layout::PVPANIC_PORT;
        Device::new(
            "PEVT".into(),
            vec![
                &Named(b"_HID", &"QEMU0001"),
                &Named(
                    b"_CRS",
                    &ResourceTemplate::new(vec![&IO::new(port, port, 1, layout::PVPANIC_PORT_SIZE as u8)]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// A virtio-mmio device, by the name that Linux knows it by (`LNRO0005`, drivers/virtio/virtio_mmio.c).
struct Virtio {
    number: u32,
    base: u32,
    size: u32,
    gsi: u32,
}

impl Virtio {
    fn new(number: usize, device: &VirtioMmio) -> Result<Self, AcpiError> {
        let VirtioMmio { base, size, gsi } = *device;
        let outside = || AcpiError::DeviceAddress { base, size };
        if base.checked_add(size).is_none_or(|end| end > u64::from(u32::MAX)) {
            return Err(outside());
        }
        Ok(Self {
            number: u32::try_from(number).map_err(|_| outside())?,
            base: u32::try_from(base).map_err(|_| outside())?,
            size: u32::try_from(size).map_err(|_| outside())?,
            gsi,
        })
    }
}

impl Aml for Virtio {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        // Three digits after the letter: V000 to VFFF. More devices than that do not fit in the room for tables.
        let name = format!("V{:03X}", self.number & 0xfff);
        Device::new(
            Path::new(&name),
            vec![
                &Named(b"_HID", &"LNRO0005"),
                &Named(b"_UID", &self.number),
                // Its accesses to memory are coherent with the CPU's caches.
                &Named(b"_CCA", &acpi_tables::aml::ONE),
                &Named(
                    b"_CRS",
                    &ResourceTemplate::new(vec![
                        &Memory32Fixed::new(true, self.base, self.size),
                        &interrupt(self.gsi),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}
