//! What a guest sees: buses, legacy devices and virtio devices.
//!
//! This crate knows neither KVM nor HTTP nor the VM that its devices belong to. A device is given guest memory, an
//! interrupt to raise and the descriptors of its backend, and answers a register access with the effect that it has
//! on the VM ([`bus::BusAction`]).
//!
//! # Lock order
//! In a virtio transport the registers come before the device; see [`virtio::transport::core`]. On PCI the function's
//! configuration space comes before both, and the table of MSI-X after all. In the serial port the output comes before
//! the registers; see [`legacy::serial`]. No device calls back into a bus, so nothing else nests.

pub mod bus;
pub mod child;
pub mod clock;
pub mod descriptors;
pub mod interrupt;
pub mod legacy;
pub mod metrics;
pub mod mmds;
pub mod patience;
pub mod pci;
pub mod random;
pub mod rate_limiter;
mod same_file;
pub mod state;
pub mod unix_socket;
pub mod virtio;

pub use same_file::same_file;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Guest-physical memory, with a dirty bitmap where a snapshot asked for one.
pub type GuestMemory = vm_memory::GuestMemoryMmap<Option<vm_memory::bitmap::AtomicBitmap>>;

/// Locks `mutex`. A thread that panicked while it held the lock left plain data behind, which the next one may use.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
