//! Base address registers (PCI Local Bus 3.0, 6.2.5.1): where a function answers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Space;

/// Bit 0 of a BAR in I/O space.
const IO_INDICATOR: u32 = 1;

/// What kind of BAR it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// 32-bit memory, not prefetchable.
    Memory,
    /// I/O ports.
    Io,
}

impl BarKind {
    /// The address space that it lies in.
    pub fn space(self) -> Space {
        match self {
            Self::Memory => Space::Memory,
            Self::Io => Space::Io,
        }
    }
}

/// A BAR, with the address that it has from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it is.
    pub kind: BarKind,
    /// Its first address, a multiple of its size.
    pub address: u32,
    /// Its size in bytes, a power of two: 16 or more for memory, 4 or more for ports.
    pub size: u32,
}

impl Bar {
    /// The bits that a guest can write. All ones written there, the register tells its size.
    pub(super) fn writable(self) -> u32 {
        !self.size.saturating_sub(1)
    }

    /// What the register reads as at first.
    pub(super) fn register(self) -> u32 {
        match self.kind {
            BarKind::Memory => self.address,
            BarKind::Io => self.address | IO_INDICATOR,
        }
    }
}

/// Where a BAR answers at the moment, for accesses that wait for nobody.
#[derive(Debug)]
pub struct Decoder {
    size: u64,
    /// [`NOWHERE`] while the function does not answer.
    base: AtomicU64,
}

const NOWHERE: u64 = u64::MAX;

impl Decoder {
    /// A decoder of `size` bytes at `address`.
    pub fn new(address: Option<u32>, size: u32) -> Self {
        Self { size: size.into(), base: AtomicU64::new(address.map_or(NOWHERE, u64::from)) }
    }

    /// Follows the register.
    pub fn set(&self, address: Option<u32>) {
        self.base.store(address.map_or(NOWHERE, u64::from), Ordering::SeqCst);
    }

    /// Its first address, while it answers.
    pub fn base(&self) -> Option<u64> {
        Some(self.base.load(Ordering::SeqCst)).filter(|base| *base != NOWHERE)
    }

    /// The offset in the BAR of an access of `len` bytes at `address`; `None` when it is not all within.
    pub fn offset(&self, address: u64, len: usize) -> Option<u64> {
        let offset = address.checked_sub(self.base()?)?;
        let end = offset.checked_add(len as u64)?;
        (end <= self.size).then_some(offset)
    }
}
