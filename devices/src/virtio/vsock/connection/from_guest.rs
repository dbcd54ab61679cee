//! What the guest says on its connection, and its data on the way to the host program.

use std::io;
use std::net::Shutdown;
use std::time::Instant;

use vm_memory::Permissions;

use super::{Connection, LINGER_TIMEOUT, Owed, Phase, Violation, retry};
use crate::GuestMemory;
use crate::virtio::segments::Segments;
use crate::virtio::vsock::packet::{Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

impl Connection {
    /// Takes a packet of the guest, but for its data, which [`take_data`](Self::take_data) has after this.
    ///
    /// # Errors
    /// When the guest must not say this here and now. The connection has to be killed.
    pub(in super::super) fn take_packet(&mut self, header: &Header) -> Result<(), Violation> {
        if header.op == Op::Rst {
            if self.phase == Phase::Lingering {
                // It has closed already, and what it sent before is still to be delivered.
                self.owed.take(Owed::RST);
                self.rst_sent = true;
            } else {
                self.forget();
            }
            return Ok(());
        }
        if matches!(self.phase, Phase::Over | Phase::Lingering) {
            // A RST is on its way.
            return Ok(());
        }
        self.take_credit(header)?;
        match (self.phase, header.op) {
            (Phase::Requested, Op::Response) if !self.owed.contains(Owed::REQUEST) => {
                self.establish();
                Ok(())
            }
            (Phase::Requested, _) | (_, Op::Request | Op::Response | Op::Invalid(_)) => {
                Err(Violation::Packet)
            }
            (_, Op::Rw) => self.take_len(header.len),
            (_, Op::Shutdown) => {
                self.take_shutdown(header.flags);
                Ok(())
            }
            (_, Op::CreditRequest) => {
                self.owed.insert(Owed::CREDIT_UPDATE);
                Ok(())
            }
            (_, Op::CreditUpdate | Op::Rst) => Ok(()),
        }
    }

    /// What the guest says of its buffer, in every packet (virtio 1.3, 5.10.6.3).
    fn take_credit(&mut self, header: &Header) -> Result<(), Violation> {
        let unconfirmed = self.sent.wrapping_sub(self.peer_fwd_cnt);
        if header.fwd_cnt.wrapping_sub(self.peer_fwd_cnt) > unconfirmed {
            return Err(Violation::Credit);
        }
        self.peer_fwd_cnt = header.fwd_cnt;
        self.peer_buf_alloc = header.buf_alloc;
        if self.phase == Phase::Established && self.credit() > 0 {
            self.deadline = None;
        }
        Ok(())
    }

    fn take_len(&mut self, len: u32) -> Result<(), Violation> {
        if !self.guest_sends {
            return Err(Violation::Packet);
        }
        let under_way = self.received.wrapping_sub(self.forwarded);
        if len > self.window.saturating_sub(under_way) {
            return Err(Violation::Credit);
        }
        self.received = self.received.wrapping_add(len);
        Ok(())
    }

    fn take_shutdown(&mut self, flags: u32) {
        if flags & SHUTDOWN_RECEIVE != 0 && self.guest_receives {
            self.guest_receives = false;
            self.shutdown_stream(Shutdown::Read);
        }
        if flags & SHUTDOWN_SEND != 0 && self.guest_sends {
            self.guest_sends = false;
            if self.backlog.is_empty() {
                self.shutdown_stream(Shutdown::Write);
            }
        }
        if self.guest_receives || self.guest_sends {
            return;
        }
        // Closed by the guest, which waits for nothing but this.
        self.owed = Owed::RST;
        if self.backlog.is_empty() {
            self.stream = None;
            self.watched = false;
            self.phase = Phase::Over;
            self.deadline = None;
        } else {
            self.phase = Phase::Lingering;
            self.deadline = Some(Instant::now() + LINGER_TIMEOUT);
        }
    }

    fn establish(&mut self) {
        let answer = format!("OK {}\n", self.ports.host);
        let written = self.stream.as_ref().map(|stream| stream.write(answer.as_bytes()));
        if !matches!(written, Some(Ok(count)) if count == answer.len()) {
            self.kill();
            return;
        }
        self.phase = Phase::Established;
        self.deadline = None;
        // What came behind the client's CONNECT line is there already.
        self.readable = true;
    }

    /// Passes data of the guest on to the host program, whose packets [`take_packet`](Self::take_packet) has accepted.
    ///
    /// # Errors
    /// When the data is not in guest memory. The connection has to be killed.
    pub(in super::super) fn take_data(
        &mut self,
        memory: &GuestMemory,
        mut data: Segments,
    ) -> Result<(), Violation> {
        // What comes behind the guest's end, while that waits for a slow reader, had no credit to bound it.
        let Some(stream) = self.stream.as_ref().filter(|_| self.guest_sends && self.host_receives) else {
            self.forward(data.len() as u32);
            return Ok(());
        };
        let iovecs = data.iovecs(memory, Permissions::Read).map_err(|_| Violation::Packet)?;
        if self.backlog.is_empty() && !data.is_empty() {
            match retry(|| stream.write_vectored(&iovecs)) {
                Ok(count) => {
                    let _ = data.take_front(count as u64);
                    self.forward(count as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.forward(data.len() as u32);
                    self.host_stops_receiving();
                    return Ok(());
                }
            }
        }
        if !data.is_empty() {
            self.backlog.append(memory, &data, self.window).map_err(|_| Violation::Packet)?;
        }
        Ok(())
    }

    /// The host took `count` bytes. The guest is told when it knows of less than half of its window.
    pub(super) fn forward(&mut self, count: u32) {
        self.forwarded = self.forwarded.wrapping_add(count);
        if self.guest_sends && self.forwarded.wrapping_sub(self.announced) >= self.window / 2 {
            self.owed_if_alive(Owed::CREDIT_UPDATE);
        }
    }

    fn owed_if_alive(&mut self, packet: Owed) {
        if matches!(self.phase, Phase::Established | Phase::Closing) {
            self.owed.insert(packet);
        }
    }
}
