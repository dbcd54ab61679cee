//! The Generic Event Device (ACPI 6.5, 5.6.9 "Interrupt-signaled ACPI events") and what it notifies: the VM generation ID and
//! the power button.

use acpi_tables::aml::{
    And, Arg, Device, EISAName, Else, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, If, Local, Method, Notify, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate,
    Store, ZERO,
};
use acpi_tables::{Aml, AmlSink};
use devices::legacy::acpi_events;

use super::dsdt::{Named, interrupt};
use crate::layout;

/// The VM generation ID in the scope `\_SB`.
const COUNTER: &str = "VGEN";
/// The power button there.
const POWER_BUTTON: &str = "PWRB";
/// The register of events, as a region and as a field.
const REGION: &str = "EVTR";
const REGISTER: &[u8; 4] = b"EVST";
/// What a new generation is notified with (Microsoft, "Virtual Machine Generation ID"), and a press of the power button (ACPI
/// 6.5, table 5.168).
const NOTIFICATION: u8 = 0x80;

/// Where the VM generation ID is, by the names that drivers know it by.
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

/// The power button, a control method device (ACPI 6.5, 4.8.3.2.2).
pub(super) struct PowerButton;

impl Aml for PowerButton {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let id = EISAName::new("PNP0C0C");
        Device::new(POWER_BUTTON.into(), vec![&Named(b"_HID", &id)]).to_aml_bytes(sink);
    }
}

/// The Generic Event Device. The VM generation ID has an interrupt of its own: a guest that was restored runs the method
/// first of all, and has no register to read for it. Another interrupt is for all other events.
pub(super) struct EventDevice;

impl Aml for EventDevice {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (counter, button) = (Path::new(COUNTER), Path::new(POWER_BUTTON));
        let (renewed, pressed) = (Notify::new(&counter, &NOTIFICATION), Notify::new(&button, &NOTIFICATION));
        let register = Path::new(std::str::from_utf8(REGISTER).unwrap_or_default());
        let (events, read) = (Local(0), Store::new(&Local(0), &register));
        let has_press = And::new(&ZERO, &events, &acpi_events::POWER_BUTTON);
        let if_pressed = If::new(&has_press, vec![&pressed]);
        let is_renewal = Equal::new(&Arg(0), &layout::VMGENID_GSI);
        let if_renewed = If::new(&is_renewal, vec![&renewed]);
        let otherwise = Else::new(vec![&read, &if_pressed]);
        Device::new(
            "GED_".into(),
            vec![
                &Named(b"_HID", &"ACPI0013"),
                &Named(
                    b"_CRS",
                    &ResourceTemplate::new(vec![
                        &interrupt(layout::VMGENID_GSI),
                        &interrupt(layout::ACPI_EVENTS_GSI),
                    ]),
                ),
                &OpRegion::new(
                    REGION.into(),
                    OpRegionSpace::SystemIO,
                    &layout::ACPI_EVENTS_PORT,
                    &layout::ACPI_EVENTS_PORT_SIZE,
                ),
                &Field::new(
                    REGION.into(),
                    FieldAccessType::Byte,
                    FieldLockRule::NoLock,
                    FieldUpdateRule::WriteAsZeroes,
                    vec![FieldEntry::Named(*REGISTER, 8)],
                ),
                &Method::new("_EVT".into(), 1, true, vec![&if_renewed, &otherwise]),
            ],
        )
        .to_aml_bytes(sink);
    }
}
