//! Turns a configuration into a running VM. The only crate that talks to KVM.
//!
//! Inside: `kvm memory cpu boot acpi ← vcpu pci_bus device_set ← vm ← controller`; an arrow points from the user to the used.

pub mod acpi;
pub mod append;
pub mod boot;
pub mod config;
pub mod console;
pub mod controller;
pub mod cpu;
mod device_set;
mod event_loop;
pub mod json;
pub mod kvm;
pub mod layout;
pub mod memory;
pub mod memory_server;
pub mod metrics;
mod pci_bus;
pub mod runtime_dir;
pub mod seccomp;
pub mod signals;
pub mod snapshot;
pub mod text_file;
pub mod thread;
pub mod timestamp;
pub mod vcpu;
pub mod vm;
pub mod vmgenid;

pub use vm::{Vm, VmError};

pub use devices::same_file;
