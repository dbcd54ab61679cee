//! What a hostile driver can do to any queue of any device.
use arbitrary::Arbitrary;
use devices::virtio::queue_harness::{Buffer, Harness, TransportKind};
use virtio_queue::desc::split::Descriptor;

/// The transport that the device is behind.
pub fn transport(pci: bool) -> TransportKind {
    if pci { TransportKind::Pci } else { TransportKind::Mmio }
}

/// One thing that the driver does to a queue; `queue` is taken modulo the number of queues.
#[derive(Arbitrary, Debug)]
pub enum Step {
    /// A chain of pieces.
    Chain {
        queue: u8,
        pieces: Vec<Piece>,
        indirect: bool,
    },
    /// A descriptor as it is in memory.
    Descriptor {
        queue: u8,
        index: u8,
        address: Place,
        len: u32,
        flags: u8,
        next: u8,
    },
    Available {
        queue: u8,
        head: u16,
    },
    AvailableIndex {
        queue: u8,
        index: u16,
    },
    Flags {
        queue: u8,
        flags: u16,
    },
    Kick {
        queue: u8,
    },
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Piece {
    place: Place,
    len: u32,
    long: bool,
    writable: bool,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Place {
    Low(u32),
    Any(u64),
}

impl Place {
    /// The guest-physical address that it stands for.
    pub fn address(self) -> u64 {
        match self {
            // Behind the rings, up to a little past the end of memory.
            Self::Low(address) => (2 << 20) + u64::from(address) % ((6 << 20) + 0x1000),
            Self::Any(address) => address,
        }
    }
}

impl Piece {
    /// A part of a descriptor chain, of up to 8 KiB, or of any length that a descriptor can have.
    pub fn buffer(self) -> Buffer {
        let len = if self.long { self.len } else { self.len % 0x2000 };
        let address = self.place.address();
        if self.writable { Buffer::writable(address, len) } else { Buffer::readable(address, len) }
    }
}

impl Step {
    /// Does it to a device with `queues` queues; the head of the chain, if it made one.
    pub fn take(self, harness: &mut Harness, queues: u32) -> Option<u16> {
        let which = |queue: u8| u32::from(queue) % queues;
        match self {
            Self::Chain { queue, pieces, indirect } => {
                let buffers: Vec<_> = pieces.into_iter().take(40).map(Piece::buffer).collect();
                return add_chain(harness, which(queue), &buffers, indirect);
            }
            Self::Descriptor { queue, index, address, len, flags, next } => {
                let descriptor =
                    Descriptor::new(address.address(), len, u16::from(flags & 7), u16::from(next));
                harness.write_descriptor(which(queue), u16::from(index), descriptor);
            }
            Self::Available { queue, head } => harness.make_available(which(queue), head),
            Self::AvailableIndex { queue, index } => harness.set_avail_idx(which(queue), index),
            Self::Flags { queue, flags } => harness.set_avail_flags(which(queue), flags),
            Self::Kick { queue } => harness.kick(which(queue)),
        }
        None
    }
}

/// Makes a chain available, in the table or by one of its own, unless it has no part; its head.
pub fn add_chain(harness: &mut Harness, queue: u32, buffers: &[Buffer], indirect: bool) -> Option<u16> {
    match (buffers.is_empty(), indirect) {
        (true, _) => None,
        (false, true) => Some(harness.add_indirect_chain(queue, buffers)),
        (false, false) => Some(harness.add_chain(queue, buffers)),
    }
}
