//! The configuration space of a function: 256 bytes, of which a guest can write those bits that say so.
//!
//! A type 0 header (PCI Local Bus 3.0, 6.1) and capabilities behind it. What lies past 256 bytes is for PCI Express
//! functions, which these are not: it reads as all ones.
//!
//! Command is 0 at first, though BARs have their addresses: Linux switches a function off and on again around each of its
//! BARs that it sizes, but only one that is on.

use super::Space;
use super::bar::Bar;
use crate::state::StateError;

/// Bytes of a function that is not a PCI Express one.
pub const SIZE: usize = 256;
/// Number of BARs of a type 0 header.
pub const BARS: usize = 6;

/// Offset of the Command register.
pub const COMMAND: usize = 0x04;
/// Command: the function answers in I/O space.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: the function answers in memory space.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: the function may access memory, and send interrupt messages.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// What a guest can set in Command: the three above, parity and system errors (for nothing), and no INTx.
const COMMAND_WRITABLE: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER | 1 << 6 | 1 << 8 | 1 << 10;

const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const REVISION: usize = 0x08;
const CACHE_LINE_SIZE: usize = 0x0c;
const LATENCY_TIMER: usize = 0x0d;
/// Offset of the first BAR.
pub const BAR0: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// First byte behind the header.
const HEADER_END: usize = 0x40;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor, and vendor of the subsystem.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Device ID of the subsystem.
    pub subsystem: u16,
    /// Base class, sub-class and programming interface, 24 bits.
    pub class: u32,
    /// Revision.
    pub revision: u8,
}

/// The registers of one function.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bars: [Option<Bar>; BARS],
    /// Where the next capability goes.
    end: usize,
    /// The byte that is to point to it.
    link: usize,
}

impl ConfigSpace {
    /// A function that is switched off, without BARs, capabilities or an interrupt pin.
    pub fn new(identity: Identity) -> Self {
        let Identity { vendor, device, subsystem, class, revision } = identity;
        let mut this = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bars: [None; BARS],
            end: HEADER_END,
            link: CAPABILITIES,
        };
        this.set(0, &[vendor.to_le_bytes(), device.to_le_bytes()].concat());
        this.set(REVISION, &(class << 8 | u32::from(revision)).to_le_bytes());
        this.set(SUBSYSTEM_VENDOR, &[vendor.to_le_bytes(), subsystem.to_le_bytes()].concat());
        this.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        for register in [CACHE_LINE_SIZE, LATENCY_TIMER, INTERRUPT_LINE] {
            this.allow(register, &[0xff]);
        }
        this
    }

    /// Gives the function `bar` as its BAR `index`. It answers there once the guest sets the bit of Command.
    pub fn add_bar(&mut self, index: usize, bar: Bar) {
        let Some(slot) = self.bars.get_mut(index) else { return };
        *slot = Some(bar);
        let register = BAR0 + 4 * index;
        self.set(register, &bar.register().to_le_bytes());
        self.allow(register, &bar.writable().to_le_bytes());
    }

    /// Adds a capability: its ID, what follows the pointer to the next one, and which bits of that a guest can write
    /// (none where `writable` ends). Capabilities stand in the list in the order in which they are added.
    ///
    /// Returns the capability's offset; one that does not fit is not there, and the offset is [`SIZE`].
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let offset = self.end;
        let end = (offset + 2 + body.len()).next_multiple_of(4);
        let (Ok(pointer), true) = (u8::try_from(offset), end <= SIZE) else { return SIZE };
        self.set(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.set(self.link, &[pointer]);
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable);
        self.link = offset + 1;
        self.end = end;
        offset
    }

    fn set(&mut self, offset: usize, value: &[u8]) {
        self.bytes.iter_mut().skip(offset).zip(value).for_each(|(byte, value)| *byte = *value);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable.iter_mut().skip(offset).zip(mask).for_each(|(byte, mask)| *byte = *mask);
    }

    /// Fills `data` from `offset`.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0xff);
        self.bytes.iter().skip(offset).zip(data).for_each(|(byte, data)| *data = *byte);
    }

    /// Takes what a guest writes at `offset`.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let registers = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, mask), data) in registers.zip(data) {
            *byte = (*byte & !mask) | (data & mask);
        }
    }

    /// Puts `data` at `offset`, whatever a guest can write there.
    pub fn store(&mut self, offset: usize, data: &[u8]) {
        self.set(offset, data);
    }

    /// All of it, as a snapshot keeps it.
    pub fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Takes over a saved configuration space: what a guest can write in it. All else must be what it is here.
    ///
    /// # Errors
    /// When it is another function's. Nothing has changed then.
    pub fn restore(&mut self, saved: &[u8]) -> Result<(), StateError> {
        let saved = <&[u8; SIZE]>::try_from(saved).map_err(|_| {
            StateError::new(format!("configuration space of {} bytes: it has {SIZE}", saved.len()))
        })?;
        let mut bytes = saved.iter().zip(&self.bytes).zip(&self.writable);
        if let Some(offset) = bytes.position(|((saved, byte), writable)| (saved ^ byte) & !writable != 0) {
            return Err(StateError::new(format!(
                "configuration space is another function's: at {offset:#x} it has {:#x}, and this one {:#x}",
                saved.get(offset).copied().unwrap_or_default(),
                self.u8(offset)
            )));
        }
        self.bytes = *saved;
        Ok(())
    }

    /// The byte at `offset`.
    pub fn u8(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(u8::MAX)
    }

    /// The 16-bit register at `offset`.
    pub fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset + 1)])
    }

    /// The 32-bit register at `offset`.
    pub fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// Where BAR `index` is now; `None` when the function does not answer there.
    pub fn bar_address(&self, index: usize) -> Option<u32> {
        let bar = (*self.bars.get(index)?)?;
        let enable = match bar.kind.space() {
            Space::Memory => COMMAND_MEMORY,
            Space::Io => COMMAND_IO,
        };
        (self.u16(COMMAND) & enable != 0).then(|| self.u32(BAR0 + 4 * index) & bar.writable())
    }
}
