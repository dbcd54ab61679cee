//! How a device raises an interrupt without knowing what delivers it.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One edge-triggered interrupt line (or, later, one MSI-X vector) of a device.
pub trait Interrupt: Send + Sync {
    /// Raises the interrupt once.
    ///
    /// # Errors
    /// What the host said when the interrupt could not be handed over.
    fn trigger(&self) -> io::Result<()>;
}

/// Counts what it is asked to raise: the interrupt of tests and of fuzz targets.
#[derive(Debug, Default)]
pub struct FakeInterrupt {
    raised: AtomicUsize,
}

impl FakeInterrupt {
    /// How often the interrupt has been raised so far.
    pub fn count(&self) -> usize {
        self.raised.load(Ordering::SeqCst)
    }
}

impl Interrupt for FakeInterrupt {
    fn trigger(&self) -> io::Result<()> {
        self.raised.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
