//! The root bus: who is asked when a guest accesses configuration space or a window.

use std::sync::Arc;

use super::{PciFunction, Space};
use crate::bus::{BusAction, BusDevice};

/// Device numbers on a bus.
pub const MAX_DEVICES: usize = 32;
/// Bytes of a bus's configuration space in memory (PCI Express 5.0, 7.2.2): 4 KiB for each of 256 functions.
pub const ECAM_SIZE: u64 = 1 << 20;

/// Bus 0, each function being a device of its own, numbered from 0 on.
#[derive(Clone, Default)]
pub struct RootBus {
    functions: Vec<Arc<dyn PciFunction>>,
}

impl RootBus {
    /// Puts `function` on the bus as the next device. False when the bus is full, and it is not there.
    #[must_use]
    pub fn add(&mut self, function: Arc<dyn PciFunction>) -> bool {
        let room = self.functions.len() < MAX_DEVICES;
        if room {
            self.functions.push(function);
        }
        room
    }
}

/// Configuration space of [`RootBus`] in memory, [`ECAM_SIZE`] bytes. A function that is not there reads as all ones.
pub struct Ecam(RootBus);

impl Ecam {
    /// The functions of `bus`, which is complete.
    pub fn new(bus: RootBus) -> Self {
        Self(bus)
    }

    /// The function that an access means, and the offset in its configuration space.
    fn function(&self, offset: u64, len: usize) -> Option<(&dyn PciFunction, usize)> {
        let register = (offset & 0xfff) as usize;
        let function = offset >> 12 & 7;
        let device = usize::try_from(offset >> 15).ok()?;
        let inside = function == 0 && register + len <= 0x1000;
        let function = self.0.functions.get(device).filter(|_| inside)?;
        Some((&**function, register))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.function(offset, data.len()) {
            Some((function, register)) => function.read_config(register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> BusAction {
        self.function(offset, data.len())
            .map_or(BusAction::None, |(function, register)| function.write_config(register, data))
    }
}

/// A range of addresses that BARs can be in.
pub struct Window {
    bus: RootBus,
    space: Space,
    base: u64,
}

impl Window {
    /// The window of `bus`, which is complete, from `base` on.
    pub fn new(bus: RootBus, space: Space, base: u64) -> Self {
        Self { bus, space, base }
    }
}

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let address = self.base.saturating_add(offset);
        if !self.bus.functions.iter().any(|function| function.read(self.space, address, data)) {
            data.fill(0xff);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> BusAction {
        let address = self.base.saturating_add(offset);
        let mut functions = self.bus.functions.iter();
        functions.find_map(|function| function.write(self.space, address, data)).unwrap_or_default()
    }
}
