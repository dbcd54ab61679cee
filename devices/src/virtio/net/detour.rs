//! The way to the metadata service: frames for it are taken out of what the guest sends, and its answers put among what the
//! guest receives.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::backend::{HEADER_LEN, Received};
use super::iovecs::IoVecs;
use crate::clock;
use crate::mmds::{HEAD_LEN, Mmds, Stack};
use crate::rate_limiter::timer::{Nanos, Timer};

/// One interface's way.
pub(super) struct Detour {
    mmds: Arc<Mmds>,
    /// TCP/IP, once the guest has sent something.
    stack: Option<Stack>,
    timer: Timer,
    /// When the timer fires.
    armed: Option<Nanos>,
    /// The backend was last to give the guest a packet.
    turn: bool,
}

impl Detour {
    /// # Errors
    /// When the host has no descriptor left.
    pub(super) fn new(mmds: Arc<Mmds>) -> io::Result<Self> {
        Ok(Self { mmds, stack: None, timer: Timer::new()?, armed: None, turn: false })
    }

    /// Readable when there is something to do that no frame reminds of.
    pub(super) fn fd(&self) -> RawFd {
        self.timer.fd()
    }

    /// Takes the packet if it is for the service. Whether it was.
    ///
    /// Neither the header of virtio nor the checksums of the frame are looked at: nothing was in between.
    pub(super) fn take(&mut self, packet: &IoVecs) -> bool {
        let mut head = [0; HEAD_LEN];
        let len = packet.read_at(HEADER_LEN, &mut head);
        if !self.mmds.is_addressed_by(head.get(..len).unwrap_or_default()) {
            return false;
        }
        // The guest may change it meanwhile; the stack takes it as it finds it.
        let mut frame = Vec::new();
        packet.append_to(HEADER_LEN, &mut frame);
        let now = clock::monotonic();
        self.stack.get_or_insert_with(|| Stack::new(self.mmds.clone(), now)).input(frame, now);
        true
    }

    /// Whether there is a frame for the guest.
    pub(super) fn has_frame(&self) -> bool {
        self.frame().is_some()
    }

    fn frame(&self) -> Option<&[u8]> {
        self.stack.as_ref()?.peek()
    }

    /// Whether there is a frame for the guest, and it is before that of the backend.
    pub(super) fn takes_turn(&self) -> bool {
        self.turn && self.has_frame()
    }

    /// The backend has had its turn.
    pub(super) fn pass_turn(&mut self) {
        self.turn = true;
    }

    /// Puts the next packet into the front of `room`.
    pub(super) fn receive(&mut self, room: &IoVecs) -> Received {
        let Some(frame) = self.frame() else { return Received::Nothing };
        let len = HEADER_LEN + frame.len();
        if room.bytes() < len {
            return Received::NeedsRoom(len);
        }
        // All of its checksums are there.
        room.write_at(0, &[0; HEADER_LEN]);
        room.write_at(HEADER_LEN, frame);
        let metrics = self.mmds.metrics();
        metrics.tx_frames.increment();
        metrics.tx_bytes.add(frame.len() as u64);
        self.turn = false;
        self.pop();
        Received::Packet(len)
    }

    /// Drops the next packet, for which there will be no room.
    pub(super) fn drop_packet(&mut self) {
        self.mmds.metrics().tx_dropped.increment();
        self.pop();
    }

    fn pop(&mut self) {
        if let Some(stack) = &mut self.stack {
            stack.pop(clock::monotonic());
        }
    }

    /// The descriptor is readable.
    pub(super) fn wake(&mut self) {
        self.timer.empty();
        self.armed = None;
        if let Some(stack) = &mut self.stack {
            stack.run(clock::monotonic());
        }
    }

    /// Sets the timer for what is to be done next.
    pub(super) fn arm(&mut self) {
        let next = self.stack.as_mut().and_then(|stack| stack.next_run(clock::monotonic()));
        match next {
            // What is not needed any more fires once, and finds nothing to do.
            None => {}
            // An earlier time is as good: the next one is set then.
            Some(next) if self.armed.is_some_and(|armed| armed <= next) => {}
            Some(next) => {
                self.timer.arm(next);
                self.armed = Some(next);
            }
        }
    }

    /// The driver is gone, and with it all that it talked about.
    pub(super) fn reset(&mut self) {
        self.stack = None;
        self.armed = None;
        self.timer.disarm();
    }
}
