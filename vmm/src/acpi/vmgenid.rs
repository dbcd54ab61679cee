//! The VM generation ID, and the device whose interrupt says that it is another (ACPI 6.5, 5.6.9 "Interrupt-signaled ACPI
//! events").

use acpi_tables::aml::{Device, Method, Notify, Package, Path, ResourceTemplate};
use acpi_tables::{Aml, AmlSink};

use super::dsdt::{Named, interrupt};
use crate::layout;

/// Its name in the scope `\_SB`.
const COUNTER: &str = "VGEN";
/// What a change is notified with (Microsoft, "Virtual Machine Generation ID").
const CHANGED: u8 = 0x80;

/// Where the identifier is, by the names that drivers know it by.
pub(super) struct Counter;

impl Aml for Counter {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (low, high) = (layout::VMGENID_START as u32, (layout::VMGENID_START >> 32) as u32);
        Device::new(
            COUNTER.into(),
            vec![
                // Four letters and four hexadecimal digits, as ACPI asks; drivers look for the others.
                &Named(b"_HID", &"RVMM0001"),
                &Named(b"_CID", &Package::new(vec![&"VMGENCTR", &"VM_Gen_Counter"])),
                &Named(b"_DDN", &"VM_Gen_Counter"),
                &Named(b"ADDR", &Package::new(vec![&low, &high])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The Generic Event Device. It has one interrupt, with one cause: its method need not look which, and a guest that was
/// restored, which runs it first, has the less of its interpreter to read in.
pub(super) struct EventDevice;

impl Aml for EventDevice {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let counter = Path::new(COUNTER);
        let changed = Notify::new(&counter, &CHANGED);
        Device::new(
            "GED_".into(),
            vec![
                &Named(b"_HID", &"ACPI0013"),
                &Named(b"_CRS", &ResourceTemplate::new(vec![&interrupt(layout::VMGENID_GSI)])),
                &Method::new("_EVT".into(), 1, false, vec![&changed]),
            ],
        )
        .to_aml_bytes(sink);
    }
}
