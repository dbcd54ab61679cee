//! Devices with registers of their own: serial port, keyboard controller, ACPI power and event registers, boot timer, and the
//! panic notifier of virtual machines.

pub mod acpi_events;
pub mod acpi_power;
pub mod boot_timer;
pub mod i8042;
pub mod pvpanic;
pub mod serial;
