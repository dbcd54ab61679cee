//! What a hostile driver can do to any queue of any device.
use arbitrary::Arbitrary;
use devices::virtio::queue_harness::{Buffer, Harness};
use virtio_queue::desc::split::Descriptor;

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
    fn address(self) -> u64 {
        match self {
            // Behind the rings, up to a little past the end of memory.
            Self::Low(address) => (2 << 20) + u64::from(address) % ((6 << 20) + 0x1000),
            Self::Any(address) => address,
        }
    }
}

impl Piece {
    fn buffer(self) -> Buffer {
        let len = if self.long { self.len } else { self.len % 0x2000 };
        let address = self.place.address();
        if self.writable { Buffer::writable(address, len) } else { Buffer::readable(address, len) }
    }
}

impl Step {
    /// Does it to a device with `queues` queues.
    pub fn take(self, harness: &mut Harness, queues: u32) {
        let which = |queue: u8| u32::from(queue) % queues;
        match self {
            Self::Chain { queue, pieces, indirect } => {
                let buffers: Vec<_> = pieces.into_iter().take(20).map(Piece::buffer).collect();
                match (buffers.is_empty(), indirect) {
                    (true, _) => {}
                    (false, true) => drop(harness.add_indirect_chain(which(queue), &buffers)),
                    (false, false) => drop(harness.add_chain(which(queue), &buffers)),
                }
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
    }
}
