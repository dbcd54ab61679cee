//! One bus type for memory-mapped and port I/O: ranges of addresses, each with the device that answers there.

use std::sync::Arc;

/// What a register access asks of the VM. Devices hold no handle on the VM; they return one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum BusAction {
    /// Nothing: the guest goes on.
    #[default]
    None,
    /// The guest powered itself off.
    Shutdown,
    /// The guest asked for a reset.
    Reset,
}

/// A device that answers at a range of addresses.
///
/// Methods take `&self`: vCPUs call them at the same time, and each device locks as little as it must.
pub trait BusDevice: Send + Sync {
    /// Fills `data` (1 to 8 bytes, of any alignment) with what the guest reads at `offset` from the range's start.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes the `data` (1 to 8 bytes, of any alignment) that the guest writes at `offset` from the range's start.
    fn write(&self, offset: u64, data: &[u8]) -> BusAction;
}

/// The byte registers that an access at `offset` touches, one after the other, as an ISA bus splits it.
pub(crate) fn byte_registers(offset: u64) -> impl Iterator<Item = u64> {
    (0..8).map(move |byte| offset.saturating_add(byte))
}

/// Why a device could not be put on a bus.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// The range is empty or ends past the last address.
    #[error("bus range of {len:#x} bytes at {base:#x} is empty or ends past the address space")]
    BadRange {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Another device answers in this range already.
    #[error("bus range of {len:#x} bytes at {base:#x} overlaps the device at {other:#x}")]
    Overlap {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
        /// First address of the device that is there.
        other: u64,
    },
}

struct Slot {
    base: u64,
    len: u64,
    device: Arc<dyn BusDevice>,
}

/// Address ranges and their devices, sorted by address. Filled while the VM is built, then only read.
#[derive(Default)]
pub struct Bus {
    slots: Vec<Slot>,
}

impl Bus {
    /// Puts `device` at `base..base + len`.
    ///
    /// # Errors
    /// [`BusError`] when the range is empty, wraps, or overlaps one that is taken.
    pub fn insert(&mut self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        let end = base.checked_add(len).filter(|_| len > 0).ok_or(BusError::BadRange { base, len })?;
        if let Some(other) = self.slots.iter().find(|slot| slot.base < end && base < slot.base + slot.len) {
            return Err(BusError::Overlap { base, len, other: other.base });
        }
        let at = self.slots.partition_point(|slot| slot.base < base);
        self.slots.insert(at, Slot { base, len, device });
        Ok(())
    }

    /// The guest reads at `address`. Where no device answers, or an access runs past its device, it reads all ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.resolve(address, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes at `address`. Where no device answers, or an access runs past its device, nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) -> BusAction {
        self.resolve(address, data.len())
            .map_or(BusAction::None, |(device, offset)| device.write(offset, data))
    }

    fn resolve(&self, address: u64, len: usize) -> Option<(&dyn BusDevice, u64)> {
        let after = self.slots.partition_point(|slot| slot.base <= address);
        let slot = self.slots.get(after.checked_sub(1)?)?;
        let offset = address - slot.base;
        let fits = offset.checked_add(len as u64).is_some_and(|end| end <= slot.len);
        fits.then(|| (slot.device.as_ref(), offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Recorder {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }

        fn write(&self, offset: u64, data: &[u8]) -> BusAction {
            self.0.lock().unwrap().push((offset, data.to_vec()));
            BusAction::Reset
        }
    }

    #[test]
    fn an_access_reaches_the_device_with_its_offset_and_returns_its_action() {
        let device = Arc::new(Recorder::default());
        let mut bus = Bus::default();
        bus.insert(0x100, 0x10, device.clone()).unwrap();
        assert_eq!(bus.write(0x104, &[1, 2]), BusAction::Reset);
        assert_eq!(*device.0.lock().unwrap(), [(4, vec![1, 2])]);
        let mut data = [0; 2];
        bus.read(0x10e, &mut data);
        assert_eq!(data, [0xe, 0xe]);
    }

    #[test]
    fn an_unclaimed_read_is_all_ones_and_an_unclaimed_write_does_nothing() {
        let mut bus = Bus::default();
        bus.insert(0x100, 0x10, Arc::new(Recorder::default())).unwrap();
        for address in [0, 0xff, 0x110, 0x10f, u64::MAX] {
            let mut data = [0; 4];
            bus.read(address, &mut data);
            assert_eq!(data, [0xff; 4], "at {address:#x}");
            assert_eq!(bus.write(address, &[0; 4]), BusAction::None, "at {address:#x}");
        }
    }

    #[test]
    fn ranges_that_overlap_wrap_or_are_empty_are_refused() {
        let mut bus = Bus::default();
        let device = || Arc::new(Recorder::default());
        bus.insert(0x100, 0x10, device()).unwrap();
        bus.insert(0x110, 0x10, device()).unwrap();
        bus.insert(0xf0, 0x10, device()).unwrap();
        for (base, len) in [(0x100, 1), (0xff, 2), (0x10f, 2), (0, 0x1000)] {
            assert!(
                matches!(bus.insert(base, len, device()), Err(BusError::Overlap { .. })),
                "{base:#x}+{len:#x}"
            );
        }
        for (base, len) in [(0, 0), (u64::MAX, 2)] {
            assert_eq!(bus.insert(base, len, device()), Err(BusError::BadRange { base, len }));
        }
    }
}
