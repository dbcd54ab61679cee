//! One interrupt line for everything, and a register that says why it was raised.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

use super::notifier::Signal;
use crate::interrupt::Interrupt;
use crate::state::StateError;

/// The interrupt of a virtio-mmio device (virtio 1.3, 4.2.2, InterruptStatus and InterruptACK).
pub(super) struct Line {
    /// Why the interrupt was raised, until the driver acknowledges it.
    status: AtomicU32,
    interrupt: Arc<dyn Interrupt>,
}

impl Line {
    pub(super) fn new(interrupt: Arc<dyn Interrupt>) -> Self {
        Self { status: AtomicU32::new(0), interrupt }
    }

    /// Why the interrupt was raised.
    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// The driver handled what `causes` says.
    pub(super) fn acknowledge(&self, causes: u32) {
        self.status.fetch_and(!causes, Ordering::SeqCst);
    }

    /// Takes over the causes of a saved device, which raises nothing.
    ///
    /// # Errors
    /// When there are no such causes.
    pub(super) fn restore(&self, status: u32) -> Result<(), StateError> {
        if status & !(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG) != 0 {
            return Err(StateError::new(format!("no interrupt status is {status:#x}")));
        }
        self.status.store(status, Ordering::SeqCst);
        Ok(())
    }

    fn raise(&self, cause: u32) -> io::Result<()> {
        // The cause comes before the interrupt, or the driver would find none.
        self.status.fetch_or(cause, Ordering::SeqCst);
        self.interrupt.trigger()
    }
}

impl Signal for Line {
    fn signal_queue(&self, _queue: u16) -> io::Result<()> {
        self.raise(VIRTIO_MMIO_INT_VRING)
    }

    fn signal_config_change(&self) -> io::Result<()> {
        self.raise(VIRTIO_MMIO_INT_CONFIG)
    }

    fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
    }
}
