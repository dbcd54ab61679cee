//! How a guest reaches a virtio device: the registers live once, in [`core`]; a transport only decodes addresses.

pub mod core;
mod line;
pub mod mmio;
mod notifier;
pub mod pci;
mod queue_config;
#[cfg(test)]
mod test_device;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::core::TransportCore;
use super::state::VirtioStateV1;
use crate::state::StateError;

/// A device behind its transport, as whoever saves and restores VMs sees it.
pub trait Transport: Send + Sync {
    /// What is behind the registers.
    fn core(&self) -> &Arc<TransportCore>;

    /// What a snapshot keeps of both, after the device was [drained](TransportCore::drain). No vCPU runs.
    ///
    /// # Errors
    /// When the device does not know how far it is.
    fn save(&self) -> Result<VirtioStateV1, StateError>;

    /// Takes over what was saved, before any driver has touched the device. A device that was active is active again, and
    /// waits to be [kicked](TransportCore::kick).
    ///
    /// # Errors
    /// What is wrong with it, or what the device lacks here. The device is of no use then.
    fn restore(&self, state: &VirtioStateV1) -> Result<(), StateError>;
}
