//! Devices that every PC has: serial port, keyboard controller, ACPI power registers.
