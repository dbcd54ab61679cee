//! Turns a configuration into a running VM. The only crate that talks to KVM.

pub mod acpi;
pub mod boot;
pub mod cpu;
pub mod kvm;
pub mod layout;
