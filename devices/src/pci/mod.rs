//! One PCI bus, as PCI Express shows it: configuration space in memory (ECAM), BARs within fixed windows, MSI-X.
//!
//! Functions are put on the bus while the VM is built, at addresses that are theirs already, so that a guest need not
//! place them. A guest may move them all the same: an access goes to whichever function decodes its address at the
//! moment, within the windows. Beyond the windows there is RAM or nothing, and no function is reached.
//!
//! There is no type 1 configuration access (ports 0xcf8 and 0xcfc): with ECAM a guest does with one exit what takes two
//! there, and Linux uses the ports for the first 256 bytes of each function as soon as it finds them.

pub mod bar;
pub mod config_space;
pub mod msix;
pub mod root;
#[cfg(test)]
mod tests;

use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusAction;

/// One of the two address spaces that BARs lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory-mapped I/O.
    Memory,
    /// Port I/O.
    Io,
}

/// A function on the bus.
///
/// Methods take `&self`: vCPUs call them at the same time.
pub trait PciFunction: Send + Sync {
    /// Fills `data` (1 to 8 bytes, any alignment) from the configuration space at `offset`, below 4096.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Takes a write of `data` (1 to 8 bytes, any alignment) to the configuration space at `offset`, below 4096.
    fn write_config(&self, offset: usize, data: &[u8]) -> BusAction;

    /// Fills `data` from `address` if a BAR decodes it now; whether one does.
    fn read(&self, space: Space, address: u64, data: &mut [u8]) -> bool;

    /// Takes a write to `address` if a BAR decodes it now, and says what that asks of the VM; `None` if none does.
    fn write(&self, space: Space, address: u64, data: &[u8]) -> Option<BusAction>;
}

/// An address at which the host turns a guest's write, of any width and value, into an event, without the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// The address space.
    pub space: Space,
    /// The address.
    pub address: u64,
}

/// What a function asks for whose doorbells are not where they were any more.
pub trait Doorbells: Send + Sync {
    /// Leaves writes at `doorbell` to the bus again, which went to `event`.
    fn disconnect(&self, doorbell: Doorbell, event: &EventFd);
}
