//! Devices with registers of their own: serial port, keyboard controller, ACPI power registers, boot timer.

pub mod acpi_power;
pub mod boot_timer;
pub mod i8042;
pub mod serial;
