//! The PCI bus: its configuration space, its host bridge, its windows.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, Memory32Fixed, ONE, ResourceTemplate, ZERO,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::{Aml, AmlSink};
use devices::pci::root::ECAM_SIZE;

use super::dsdt::Named;
use super::tables::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

/// Where the configuration space is (PCI Firmware 3.3, 4.1.2): bus 0 of segment 0, and no other.
pub(super) fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::PCI_ECAM_START.into(), 0, 0, 0);
    mcfg
}

/// The host bridge. No interrupt is routed to a pin: functions have messages only.
pub(super) struct HostBridge;

impl Aml for HostBridge {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let io_end = layout::PCI_IO_START + (layout::PCI_IO_SIZE - 1);
        let memory_end = layout::PCI_MEMORY_START + (layout::PCI_MEMORY_SIZE - 1);
        Device::new(
            "PCI0".into(),
            vec![
                &Named(b"_HID", &EISAName::new("PNP0A08")),
                &Named(b"_CID", &EISAName::new("PNP0A03")),
                &Named(b"_UID", &ZERO),
                &Named(b"_SEG", &ZERO),
                &Named(b"_BBN", &ZERO),
                // Functions' accesses to memory are coherent with the CPU's caches.
                &Named(b"_CCA", &ONE),
                &Named(
                    b"_CRS",
                    &ResourceTemplate::new(vec![
                        &AddressSpace::new_bus_number(0u16, 0u16),
                        &AddressSpace::new_io(layout::PCI_IO_START, io_end, None),
                        &AddressSpace::new_memory(
                            AddressSpaceCacheable::NotCacheable,
                            true,
                            layout::PCI_MEMORY_START,
                            memory_end,
                            None,
                        ),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// Says that the configuration space is taken (PCI Firmware 3.3, 4.1.2): Linux does not use it otherwise.
pub(super) struct Reservation;

impl Aml for Reservation {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Device::new(
            "ECAM".into(),
            vec![
                &Named(b"_HID", &EISAName::new("PNP0C02")),
                &Named(b"_UID", &ZERO),
                &Named(
                    b"_CRS",
                    &ResourceTemplate::new(vec![&Memory32Fixed::new(
                        true,
                        layout::PCI_ECAM_START,
                        ECAM_SIZE as u32,
                    )]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}
