//! What the device does with its two queues: when which of them moves, and how far before others get their turn.

use std::io;

use log::{debug, warn};

use super::backend::{HEADER_LEN, Received, Sent};
use super::detour::Detour;
use super::device::{
    Active, BACKEND_TOKEN, DETOUR_TOKEN, NetDevice, RECEIVE_LIMITER_TOKEN, RECEIVE_QUEUE,
    TRANSMIT_LIMITER_TOKEN, TRANSMIT_QUEUE,
};
use super::receive::ReceiveQueue;
use super::transmit::Next;
use crate::virtio::device::{DeviceError, DeviceEvent};

/// Packets that one call of `process` moves in one direction before other devices get their turn. A buffer that is of no
/// use counts like one.
const MAX_PACKETS_PER_CALL: usize = 128;
/// Bytes after which it moves no more.
const MAX_BYTES_PER_CALL: usize = 1 << 20;
/// A frame for the metadata service, which is answered here and now, counts like so many others.
const DETOURED_COST: usize = 8;

/// Room that a packet is given at first: an ordinary frame of Ethernet.
pub(super) const FIRST_ROOM: usize = 1526;

/// Where a packet for the guest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Backend,
    Detour,
}

/// What has become of a packet of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// It is gone, and took as long as so many packets usually do.
    Gone(usize),
    /// It has to wait.
    Waits,
}

impl NetDevice {
    pub(super) fn handle(&mut self, active: &mut Active, event: DeviceEvent) -> Result<(), DeviceError> {
        self.handle_event(active, event)?;
        if let Some(detour) = &mut self.detour {
            detour.arm();
        }
        Ok(())
    }

    fn handle_event(&mut self, active: &mut Active, event: DeviceEvent) -> Result<(), DeviceError> {
        match event {
            DeviceEvent::Queue(RECEIVE_QUEUE) => {
                self.start(active);
                self.receive(active)
            }
            DeviceEvent::Queue(TRANSMIT_QUEUE) => {
                self.start(active);
                self.transmit_and_answer(active)
            }
            DeviceEvent::Backend(BACKEND_TOKEN) => {
                self.backend.tick();
                self.receive(active)?;
                if let Err(error) = self.backend.flush() {
                    self.lose_link(active, &error);
                }
                if active.transmit.stalled { self.transmit_and_answer(active) } else { Ok(()) }
            }
            DeviceEvent::Backend(RECEIVE_LIMITER_TOKEN) => {
                self.receive_limiter.wake();
                self.receive(active)
            }
            DeviceEvent::Backend(TRANSMIT_LIMITER_TOKEN) => {
                self.transmit_limiter.wake();
                self.transmit_and_answer(active)
            }
            DeviceEvent::Backend(DETOUR_TOKEN) => {
                if let Some(detour) = &mut self.detour {
                    detour.wake();
                }
                self.answer(active)
            }
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => Ok(()),
        }
    }

    fn start(&mut self, active: &Active) {
        if std::mem::take(&mut self.link_news) {
            active.interrupt.signal_config_change();
        }
        if self.config_space.link_up
            && let Err(error) = self.backend.start()
        {
            self.lose_link(active, &error);
        }
    }

    /// The backend is gone for good: the guest sees a cable that was pulled out.
    fn lose_link(&mut self, active: &Active, error: &io::Error) {
        if !std::mem::replace(&mut self.config_space.link_up, false) {
            return;
        }
        let why = self.backend.obituary().unwrap_or_else(|| error.to_string());
        warn!("network interface {}: the link is down, the VM goes on: {why}", self.id);
        active.interrupt.signal_config_change();
    }

    /// Gives the guest what the backend has for it.
    fn receive(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        active.receive.queue.disable_notifications()?;
        let (mut packets, mut bytes) = (0, 0);
        while self.config_space.link_up {
            if packets >= MAX_PACKETS_PER_CALL || bytes >= MAX_BYTES_PER_CALL {
                active.receive.queue.continue_later();
                break;
            }
            packets += 1;
            let Active { receive, expected, .. } = active;
            let filled = receive.fill(*expected)?;
            packets += receive.take_useless();
            if !filled {
                self.metrics.rx_no_buffers.increment();
                // Out of buffers: the driver tells of new ones.
                if receive.queue.enable_notifications()? {
                    continue;
                }
                break;
            }
            let len = match receive.packet.take() {
                Some(len) => len,
                None => match self.next_packet(receive) {
                    (_, Received::Packet(len)) => len,
                    (source, Received::NeedsRoom(len)) => {
                        // From now on there is room for one as long as this.
                        *expected = len;
                        if self.make_room(receive, len, source)? {
                            continue;
                        }
                        break;
                    }
                    (_, Received::Nothing) => break,
                    (_, Received::Gone(error)) => {
                        self.lose_link(active, &error);
                        break;
                    }
                },
            };
            if !self.receive_limiter.take(frame_len(len) as u64) {
                self.metrics.rx_limited.increment();
                receive.packet = Some(len);
                break;
            }
            *expected = (*expected - *expected / 64).max(len).max(FIRST_ROOM);
            self.deliver(receive, len)?;
            bytes += len;
        }
        active.receive.queue.notify_driver()
    }

    fn deliver(&self, receive: &mut ReceiveQueue, len: usize) -> Result<(), DeviceError> {
        receive.deliver(len)?;
        self.metrics.rx_frames.increment();
        self.metrics.rx_bytes.add(frame_len(len) as u64);
        Ok(())
    }

    /// Gives the guest the packet that waits for the rate limiter, before its time: it is in the guest's buffers, which
    /// nobody will look at once they are saved.
    pub(super) fn deliver_waiting(&self, active: &mut Active) -> Result<(), DeviceError> {
        if let Some(len) = active.receive.packet.take() {
            self.deliver(&mut active.receive, len)?;
        }
        active.receive.queue.notify_driver()?;
        active.transmit.queue.notify_driver()
    }

    /// Puts the next packet for the guest into the front of the room. Backend and metadata service take turns.
    fn next_packet(&mut self, receive: &mut ReceiveQueue) -> (Source, Received) {
        let room = &mut receive.room;
        let Some(detour) = &mut self.detour else { return (Source::Backend, self.backend.receive(room)) };
        if detour.takes_turn() && !self.backend.holds_room() {
            return (Source::Detour, detour.receive(room));
        }
        match self.backend.receive(room) {
            Received::Nothing if detour.has_frame() && !self.backend.holds_room() => {
                (Source::Detour, detour.receive(room))
            }
            received => {
                detour.pass_turn();
                (Source::Backend, received)
            }
        }
    }

    /// Whether it makes sense to ask `source` again for a packet of `len` bytes, which did not fit.
    fn make_room(
        &mut self,
        receive: &mut ReceiveQueue,
        len: usize,
        source: Source,
    ) -> Result<bool, DeviceError> {
        receive.fill(len)?;
        if receive.room.bytes() >= len {
            return Ok(true);
        }
        if receive.is_full() {
            debug!("network interface {}: no room for a frame of {} bytes", self.id, frame_len(len));
            self.metrics.rx_dropped.increment();
            match (source, &mut self.detour) {
                (Source::Detour, Some(detour)) => detour.drop_packet(),
                _ => self.backend.drop_packet(),
            }
            return Ok(true);
        }
        self.metrics.rx_no_buffers.increment();
        receive.queue.enable_notifications()
    }

    /// Gives the guest what the metadata service has for it.
    fn answer(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if self.detour.as_ref().is_some_and(Detour::has_frame) { self.receive(active) } else { Ok(()) }
    }

    fn transmit_and_answer(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        self.transmit(active)?;
        self.answer(active)
    }

    /// Gives the backend what the guest has for it.
    fn transmit(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        active.transmit.stalled = false;
        active.transmit.queue.disable_notifications()?;
        let (mut packets, mut bytes) = (0, 0);
        loop {
            let mut waits = false;
            while packets < MAX_PACKETS_PER_CALL && bytes < MAX_BYTES_PER_CALL {
                match active.transmit.next(self.backend.max_frame_len())? {
                    Next::None => break,
                    Next::Nonsense => {
                        self.metrics.tx_invalid.increment();
                        packets += 1;
                    }
                    Next::Packet => match self.send(active)? {
                        Moved::Waits => {
                            waits = true;
                            break;
                        }
                        Moved::Gone(cost) => {
                            packets += cost;
                            bytes += active.transmit.packet.bytes();
                        }
                    },
                }
            }
            if let Err(error) = self.backend.flush() {
                self.lose_link(active, &error);
            }
            if waits {
                break;
            }
            if packets >= MAX_PACKETS_PER_CALL || bytes >= MAX_BYTES_PER_CALL {
                active.transmit.queue.continue_later();
                break;
            }
            if !active.transmit.queue.enable_notifications()? {
                break;
            }
            // Counts as a packet: a driver may move the index to and fro.
            packets += 1;
        }
        active.transmit.queue.notify_driver()
    }

    /// Sends the packet that is next.
    fn send(&mut self, active: &mut Active) -> Result<Moved, DeviceError> {
        let transmit = &mut active.transmit;
        let frame_len = frame_len(transmit.packet.bytes()) as u64;
        if !self.config_space.link_up {
            self.metrics.tx_dropped.increment();
            transmit.done()?;
            return Ok(Moved::Gone(1));
        }
        if !self.transmit_limiter.take(frame_len) {
            self.metrics.tx_limited.increment();
            return Ok(Moved::Waits);
        }
        if self.detour.as_mut().is_some_and(|detour| detour.take(&transmit.packet)) {
            transmit.done()?;
            return Ok(Moved::Gone(DETOURED_COST));
        }
        match self.backend.send(&mut transmit.packet) {
            Sent::Taken => {
                self.metrics.tx_frames.increment();
                self.metrics.tx_bytes.add(frame_len);
            }
            Sent::Full => {
                self.transmit_limiter.refund(frame_len);
                self.metrics.tx_stalled.increment();
                transmit.stalled = true;
                return Ok(Moved::Waits);
            }
            Sent::Refused(error) => {
                debug!("network interface {}: a frame is refused: {error}", self.id);
                self.metrics.tx_errors.increment();
            }
            Sent::Gone(error) => {
                transmit.done()?;
                self.metrics.tx_dropped.increment();
                self.lose_link(active, &error);
                return Ok(Moved::Gone(1));
            }
        }
        transmit.done()?;
        Ok(Moved::Gone(1))
    }
}

/// Length of the frame in a packet.
fn frame_len(packet_len: usize) -> usize {
    packet_len.saturating_sub(HEADER_LEN)
}
