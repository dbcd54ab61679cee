//! An interrupt line of the I/O APIC.
//!
//! It is raised by ioctl and not by irqfd. KVM injects an irqfd of a line from a worker thread (only message-signalled
//! interrupts are injected where the eventfd is written), so each interrupt would cost a wake-up and two switches between
//! threads: on one CPU a sixth of the time that a small read from a disk takes.
//!
//! It is for devices that the event loop serves.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::interrupt::Interrupt;
use kvm_ioctls::VmFd;

/// An edge-triggered interrupt.
pub(crate) struct IrqLine {
    vm: Arc<VmFd>,
    gsi: u32,
    /// One edge after the other: of two that overlap, KVM would see one.
    edge: Mutex<()>,
}

impl IrqLine {
    /// The line `gsi` of `vm`.
    pub(crate) fn new(vm: &Arc<VmFd>, gsi: u32) -> Self {
        Self { vm: vm.clone(), gsi, edge: Mutex::new(()) }
    }
}

impl Interrupt for IrqLine {
    fn trigger(&self) -> io::Result<()> {
        let _edge = self.edge.lock().unwrap_or_else(PoisonError::into_inner);
        let set = |level| {
            self.vm.set_irq_line(self.gsi, level).map_err(|error| io::Error::from_raw_os_error(error.errno()))
        };
        set(true)?;
        set(false)
    }
}
