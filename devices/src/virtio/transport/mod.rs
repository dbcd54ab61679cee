//! How a guest reaches a virtio device: the registers live once, in [`core`]; a transport only decodes addresses.

pub mod core;
mod line;
pub mod mmio;
mod notifier;
pub mod pci;
mod queue_config;
#[cfg(test)]
mod tests;
