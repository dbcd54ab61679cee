//! Virtio devices (virtio 1.3) and the transports that show them to a guest.

pub mod balloon;
pub mod block;
pub mod console;
pub mod device;
pub mod net;
#[cfg(any(test, feature = "test-harness"))]
pub mod pci_harness;
pub mod queue;
#[cfg(any(test, feature = "test-harness"))]
pub mod queue_harness;
mod ring_memory;
pub mod rng;
pub mod segments;
mod serve;
pub mod state;
pub mod transport;
pub mod vsock;
