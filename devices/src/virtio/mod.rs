//! Virtio devices (virtio 1.3) and the transports that show them to a guest.

pub mod device;
pub mod queue;
pub mod segments;
pub mod transport;
