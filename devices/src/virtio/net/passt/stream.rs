//! Frames on a stream socket: before each its length, 32 bits in big-endian order (passt(1), and QEMU's
//! `-netdev stream`). There is no header of virtio, so there are no offloads that need one.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
#[cfg(any(test, feature = "test-harness"))]
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_HDR_F_DATA_VALID};

#[cfg(any(test, feature = "test-harness"))]
use crate::virtio::net::backend::Backend;
use crate::virtio::net::backend::{ETHERNET_HEADER_LEN, HEADER_LEN, Received, Sent};
use crate::virtio::net::iovecs::{IoVecs, MAX_PIECES};

/// Longest frame that passt knows (ETH_MAX_MTU).
pub(super) const MAX_FRAME_LEN: usize = 65535;
/// Bytes of a frame's length.
const LENGTH_LEN: usize = 4;
/// Frames up to so many bytes are copied and sent together; longer ones go from guest memory, one system call each.
const MAX_COPIED_LEN: usize = 4096;
/// Bytes that wait to be sent, after which no small frame is added. A long one can be added once, in part.
const ENOUGH_WAITING: usize = 64 << 10;
/// Bytes that are read ahead.
const AHEAD_LEN: usize = 64 << 10;
/// The same behind a long frame, most of which is read to where it belongs: what is read ahead must be copied.
const AHEAD_OF_LONG_LEN: usize = 2 << 10;

/// A frame whose length has been read.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    /// Its length and that of its header.
    packet_len: usize,
    /// Bytes of that in the front of the room; 0 when nothing has been looked for.
    placed: usize,
}

/// One end of a socket with frames.
pub(super) struct Stream {
    socket: UnixStream,
    /// `flags` of the header that each frame gets.
    flags: u8,
    /// What has been read ahead: `ahead[start..end]`. Allocated with the first frame.
    ahead: Vec<u8>,
    start: usize,
    end: usize,
    incoming: Option<Incoming>,
    /// Bytes of a frame that was dropped, which are still to come.
    dropping: usize,
    last_len: usize,
    /// What waits to be sent, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
}

impl Stream {
    /// Frames over `socket`, which does not block.
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            flags: 0,
            ahead: Vec::new(),
            start: 0,
            end: 0,
            incoming: None,
            dropping: 0,
            last_len: 0,
            waiting: Vec::new(),
            sent: 0,
        }
    }

    pub(super) fn set_features(&mut self, features: u64) {
        let valid = features & 1 << VIRTIO_NET_F_GUEST_CSUM != 0;
        self.flags = if valid { VIRTIO_NET_HDR_F_DATA_VALID as u8 } else { 0 };
    }

    pub(super) fn send(&mut self, packet: &mut IoVecs) -> Sent {
        let Some(frame_len) = packet.bytes().checked_sub(HEADER_LEN) else {
            return Sent::Refused(io::ErrorKind::InvalidInput.into());
        };
        if !(ETHERNET_HEADER_LEN..=MAX_FRAME_LEN).contains(&frame_len) || packet.count() > MAX_PIECES {
            return Sent::Refused(io::ErrorKind::InvalidInput.into());
        }
        let length = (frame_len as u32).to_be_bytes();
        if frame_len <= MAX_COPIED_LEN {
            if self.waiting_len() >= ENOUGH_WAITING {
                match self.flush() {
                    Ok(()) if self.waiting_len() >= ENOUGH_WAITING => return Sent::Full,
                    Ok(()) => {}
                    Err(error) => return Sent::Gone(error),
                }
            }
            self.waiting.extend_from_slice(&length);
            packet.append_to(HEADER_LEN, &mut self.waiting);
            return Sent::Taken;
        }
        let waiting = self.waiting.get(self.sent..).unwrap_or_default();
        let waiting_len = waiting.len();
        let total = waiting_len + LENGTH_LEN + frame_len;
        match packet.write_behind(self.socket.as_raw_fd(), [waiting, &length], HEADER_LEN) {
            Ok(written) if written < waiting_len => {
                self.sent += written;
                Sent::Full
            }
            Ok(written) => {
                self.waiting.clear();
                self.sent = 0;
                let written = written - waiting_len;
                if written == 0 {
                    return Sent::Full;
                }
                if written < total - waiting_len {
                    // The rest must follow, whatever the guest does to its buffer.
                    self.waiting.extend_from_slice(length.get(written..).unwrap_or_default());
                    let offset = HEADER_LEN + written.saturating_sub(LENGTH_LEN);
                    packet.append_to(offset, &mut self.waiting);
                }
                Sent::Taken
            }
            Err(error) if would_block(&error) => Sent::Full,
            Err(error) => Sent::Gone(error),
        }
    }

    fn waiting_len(&self) -> usize {
        self.waiting.len() - self.sent
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(waiting) = self.waiting.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            match self.socket.write(waiting) {
                Ok(written) => self.sent += written,
                Err(error) if would_block(&error) => {
                    self.waiting.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.waiting.clear();
        self.sent = 0;
        Ok(())
    }

    pub(super) fn receive(&mut self, room: &mut IoVecs) -> Received {
        loop {
            let step = match self.incoming {
                None => self.begin(),
                Some(incoming) => self.go_on(incoming, room),
            };
            match step {
                Ok(Some(received)) => return received,
                Ok(None) => {}
                Err(error) if would_block(&error) => return Received::Nothing,
                Err(error) => return Received::Gone(error),
            }
        }
    }

    /// Looks for the length of the next frame.
    fn begin(&mut self) -> io::Result<Option<Received>> {
        let dropped = self.dropping.min(self.end - self.start);
        self.dropping -= dropped;
        self.start += dropped;
        let ahead = self.ahead.get(self.start..self.end).unwrap_or_default();
        let Some(length) = ahead.first_chunk::<LENGTH_LEN>().filter(|_| self.dropping == 0) else {
            self.read_ahead()?;
            return Ok(None);
        };
        let len = u32::from_be_bytes(*length) as usize;
        if !(ETHERNET_HEADER_LEN..=MAX_FRAME_LEN).contains(&len) {
            let message = format!("a frame of {len} bytes is announced");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.start += LENGTH_LEN;
        self.last_len = len;
        self.incoming = Some(Incoming { packet_len: HEADER_LEN + len, placed: 0 });
        Ok(None)
    }

    /// Places more of a frame.
    fn go_on(&mut self, incoming: Incoming, room: &mut IoVecs) -> io::Result<Option<Received>> {
        let Incoming { packet_len, mut placed } = incoming;
        if room.bytes() < packet_len {
            return Ok(Some(Received::NeedsRoom(packet_len)));
        }
        if placed == 0 {
            let mut header = [0; HEADER_LEN];
            header[0] = self.flags;
            room.write_at(0, &header);
            placed = HEADER_LEN;
        }
        let ahead = self.ahead.get(self.start..self.end).unwrap_or_default();
        let part = ahead.get(..packet_len - placed).unwrap_or(ahead);
        room.write_at(placed, part);
        self.start += part.len();
        placed += part.len();
        if placed < packet_len {
            // Nothing is left of what was read ahead.
            self.incoming = Some(Incoming { packet_len, placed });
            let limit = if packet_len > MAX_COPIED_LEN { AHEAD_OF_LONG_LEN } else { AHEAD_LEN };
            let ahead = self.ahead.get_mut(..limit).unwrap_or_default();
            let count = room.read(self.socket.as_raw_fd(), placed, packet_len, ahead)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let direct = count.min(packet_len - placed);
            placed += direct;
            (self.start, self.end) = (0, count - direct);
        }
        self.incoming = Some(Incoming { packet_len, placed });
        if placed < packet_len {
            return Ok(None);
        }
        self.incoming = None;
        Ok(Some(Received::Packet(packet_len)))
    }

    /// Reads more than there is.
    fn read_ahead(&mut self) -> io::Result<()> {
        if self.ahead.is_empty() {
            self.ahead.resize(AHEAD_LEN, 0);
        }
        // Less than a frame's length is left.
        self.ahead.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let limit = if self.last_len > MAX_COPIED_LEN { AHEAD_OF_LONG_LEN } else { AHEAD_LEN };
        let room = self.ahead.get_mut(self.end..limit).unwrap_or_default();
        match self.socket.read(room)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }

    pub(super) fn holds_room(&self) -> bool {
        self.incoming.is_some_and(|incoming| incoming.placed > 0)
    }

    pub(super) fn drop_packet(&mut self) {
        if let Some(Incoming { packet_len, placed }) = self.incoming.take() {
            self.dropping = packet_len - placed.max(HEADER_LEN);
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A stream that is there from the beginning, with nobody to start.
#[cfg(any(test, feature = "test-harness"))]
pub(in crate::virtio::net) struct StreamBackend(Stream);

#[cfg(any(test, feature = "test-harness"))]
impl StreamBackend {
    /// Frames over `socket`, which is made not to block.
    pub(in crate::virtio::net) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(Stream::new(socket)))
    }
}

#[cfg(any(test, feature = "test-harness"))]
impl Backend for StreamBackend {
    fn offloads(&self) -> u64 {
        1 << VIRTIO_NET_F_GUEST_CSUM
    }

    fn max_frame_len(&self) -> usize {
        MAX_FRAME_LEN
    }

    fn fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.0.set_features(features);
        Ok(())
    }

    fn send(&mut self, packet: &mut IoVecs) -> Sent {
        self.0.send(packet)
    }

    fn flush(&mut self) -> Result<(), io::Error> {
        self.0.flush()
    }

    fn receive(&mut self, room: &mut IoVecs) -> Received {
        self.0.receive(room)
    }

    fn holds_room(&self) -> bool {
        self.0.holds_room()
    }

    fn drop_packet(&mut self) {
        self.0.drop_packet();
    }
}
