//! Devices that every PC has: serial port, keyboard controller, ACPI power registers.

pub mod acpi_power;
pub mod i8042;
pub mod serial;
