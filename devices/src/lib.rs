//! What a guest sees: buses, legacy devices and virtio devices.
//!
//! This crate knows neither KVM nor HTTP nor the VM that its devices belong to. A device is given guest memory, an
//! interrupt to raise and the descriptors of its backend, and answers a register access with the effect that it has on
//! the VM ([`bus::BusAction`]).

pub mod bus;
pub mod interrupt;
pub mod legacy;
pub mod virtio;

/// Guest-physical memory, with a dirty bitmap where a snapshot asked for one.
pub type GuestMemory = vm_memory::GuestMemoryMmap<Option<vm_memory::bitmap::AtomicBitmap>>;
