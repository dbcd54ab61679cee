//! What a network device moves frames to and from.

use std::io;
use std::os::fd::RawFd;

use super::iovecs::IoVecs;

/// `struct virtio_net_hdr` (virtio 1.3, 5.1.6), which is before every frame in a virtqueue.
pub(super) const HEADER_LEN: usize = 12;
/// Where `num_buffers` is in it.
pub(super) const NUM_BUFFERS_OFFSET: usize = 10;
/// Header of Ethernet: no frame is shorter.
pub(super) const ETHERNET_HEADER_LEN: usize = 14;
/// Largest frame with its header: what a driver without mergeable buffers has room for when it takes segments that are
/// still to be cut up (virtio 1.3, 5.1.6.3.1).
pub(super) const MAX_PACKET_LEN: usize = 65562;

/// What came of a frame to be sent.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is on its way, and the guest's buffer is free.
    Taken,
    /// There is no room. The device is told by the descriptor when there may be.
    Full,
    /// The host does not take this frame; others may fare better.
    Refused(io::Error),
    /// The backend is gone.
    Gone(io::Error),
}

/// What came of asking for a frame.
#[derive(Debug)]
pub(super) enum Received {
    /// One of so many bytes, its header included, is in the front of the room.
    Packet(usize),
    /// One of so many bytes, its header included, does not fit. The front of the room must stay what it is until there is
    /// more of it, or the frame is dropped.
    NeedsRoom(usize),
    /// There is none. The device is told by the descriptor when there may be.
    Nothing,
    /// The backend is gone.
    Gone(io::Error),
}

/// What a network device moves frames to and from. A packet is a header and a frame.
pub(super) trait Backend: Send {
    /// The offloads that it is good for, as features of virtio.
    fn offloads(&self) -> u64;

    /// Longest frame that it takes, in bytes.
    fn max_frame_len(&self) -> usize;

    /// Tells that there is something to receive, or room to send, or to be done by `tick`; for an edge-triggered watch.
    fn fd(&self) -> RawFd;

    /// The driver has chosen `features`.
    fn set_features(&mut self, features: u64) -> io::Result<()>;

    /// Does what must be done before the first frame; the guest drives the device, and this is the main thread.
    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Its descriptor has told something.
    fn tick(&mut self) {}

    /// Takes the packet off the guest's hands.
    fn send(&mut self, packet: &mut IoVecs) -> Sent;

    /// Sends what `send` took and has kept so far.
    fn flush(&mut self) -> Result<(), io::Error> {
        Ok(())
    }

    /// Puts a packet into the front of `room`, which has space for a header at least.
    fn receive(&mut self, room: &mut IoVecs) -> Received;

    /// Whether a part of a packet is in the front of the room, which must stay what it is until the packet is complete.
    fn holds_room(&self) -> bool;

    /// Drops the packet that needed room, and what is already in the room of one.
    fn drop_packet(&mut self);

    /// What is known of why the backend is gone.
    fn obituary(&mut self) -> Option<String> {
        None
    }
}
