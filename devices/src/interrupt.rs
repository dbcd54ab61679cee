//! How a device raises an interrupt without knowing what delivers it.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lock;

/// One edge-triggered interrupt line of a device.
pub trait Interrupt: Send + Sync {
    /// Raises the interrupt once.
    ///
    /// # Errors
    /// What the host said when the interrupt could not be handed over.
    fn trigger(&self) -> io::Result<()>;
}

/// What delivers message-signalled interrupts (MSI): a write of `data` to `address` on the bus.
pub trait MsiSender: Send + Sync {
    /// Delivers one message. Both values are the guest's: any that name no interrupt are dropped.
    ///
    /// # Errors
    /// What the host said when the message could not be handed over.
    fn send(&self, address: u64, data: u32) -> io::Result<()>;
}

/// Keeps the messages that it is asked to send, for tests and for fuzz targets.
#[derive(Debug, Default)]
pub struct FakeMsi {
    sent: Mutex<Vec<(u64, u32)>>,
}

impl FakeMsi {
    /// The messages so far: address and data.
    pub fn sent(&self) -> Vec<(u64, u32)> {
        lock(&self.sent).clone()
    }
}

impl MsiSender for FakeMsi {
    fn send(&self, address: u64, data: u32) -> io::Result<()> {
        lock(&self.sent).push((address, data));
        Ok(())
    }
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
