//! Devices that every PC has: serial port, keyboard controller, ACPI power registers; and the panic notifier of virtual ones.

pub mod acpi_power;
pub mod i8042;
pub mod pvpanic;
pub mod serial;
