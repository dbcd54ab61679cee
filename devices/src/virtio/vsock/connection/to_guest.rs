//! What the guest is sent: the packets that it is owed, and data as far as it has room for it.

use std::io;
use std::time::{Duration, Instant};

use super::{Connection, Owed, Phase, Sent, retry};
use crate::virtio::device::DeviceError;
use crate::virtio::vsock::packet::{
    HOST_CID, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use crate::virtio::vsock::rx_queue::RxQueue;

/// How long the guest may take to acknowledge that a connection is shut both ways, before it is told that it is gone.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection waits for credit before it asks for it.
const CREDIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Receive buffers that one system call fills when a host program sends more than one of them holds.
const BUFFERS_PER_READ: usize = 32;
/// Bytes that one system call reads at most.
const BYTES_PER_READ: u64 = 256 << 10;

impl Connection {
    /// Bytes that the guest has room for.
    pub(super) fn credit(&self) -> u32 {
        self.peer_buf_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_fwd_cnt))
    }

    pub(super) fn wants_data(&self) -> bool {
        self.phase == Phase::Established && self.guest_receives && self.host_sends
    }

    pub(super) fn can_send_data(&self) -> bool {
        self.wants_data() && self.readable && self.credit() > 0
    }

    /// The ways that the guest has yet to be told are shut.
    pub(super) fn shutdown_due(&self) -> u32 {
        if self.phase != Phase::Established {
            return 0;
        }
        let send = if self.host_sends { 0 } else { SHUTDOWN_SEND };
        let receive = if self.host_receives { 0 } else { SHUTDOWN_RECEIVE };
        (send | receive) & !self.told
    }

    fn header(&self, op: Op) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len: 0,
            socket_type: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: self.window,
            fwd_cnt: self.forwarded,
        }
    }

    /// Sends the guest the one packet that it is owed first, or the data of one system call. `rx` has a buffer.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(in super::super) fn send(&mut self, rx: &mut RxQueue) -> Result<Sent, DeviceError> {
        for (owed, op) in [(Owed::RST, Op::Rst), (Owed::REQUEST, Op::Request), (Owed::RESPONSE, Op::Response)]
        {
            if self.owed.take(owed) {
                self.rst_sent |= op == Op::Rst;
                return self.send_header(rx, self.header(op));
            }
        }
        if self.can_send_data() {
            let sent = self.send_data(rx)?;
            if sent.packets > 0 {
                return Ok(sent);
            }
        }
        if self.owed.take(Owed::CREDIT_UPDATE) {
            return self.send_header(rx, self.header(Op::CreditUpdate));
        }
        if self.shutdown_due() != 0 {
            self.told |= self.shutdown_due();
            if self.told == SHUTDOWN_BOTH {
                self.phase = Phase::Closing;
                self.deadline = Some(Instant::now() + CLOSE_TIMEOUT);
            }
            return self.send_header(rx, Header { flags: self.told, ..self.header(Op::Shutdown) });
        }
        if self.owed.take(Owed::CREDIT_REQUEST) {
            return self.send_header(rx, self.header(Op::CreditRequest));
        }
        Ok(Sent::default())
    }

    fn send_header(&mut self, rx: &mut RxQueue, header: Header) -> Result<Sent, DeviceError> {
        self.announced = self.forwarded;
        let packets = rx.send(header, 0)?;
        let (reset, credit_update) = (header.op == Op::Rst, header.op == Op::CreditUpdate);
        Ok(Sent { packets, bytes: 0, reset, credit_update })
    }

    /// Reads from the socket straight into the guest's buffers.
    fn send_data(&mut self, rx: &mut RxQueue) -> Result<Sent, DeviceError> {
        let Some(stream) = &self.stream else { return Ok(Sent::default()) };
        let buffers = if self.bulk { BUFFERS_PER_READ } else { 1 };
        rx.fill(buffers)?;
        let limit = u64::from(self.credit()).min(BYTES_PER_READ);
        let (iovecs, room) = rx.room(buffers, limit);
        match retry(|| stream.read_vectored(&iovecs)) {
            Ok(0) => {
                self.readable = false;
                self.host_sends = false;
                Ok(Sent::default())
            }
            Ok(count) => {
                let bytes = count as u64;
                // Less than there was room for: the socket is empty.
                self.readable = bytes == room || !self.watched;
                self.bulk = bytes >= rx.next_room();
                self.sent = self.sent.wrapping_add(count as u32);
                self.owed.take(Owed::CREDIT_UPDATE);
                self.announced = self.forwarded;
                let packets = rx.send(self.header(Op::Rw), bytes)?;
                if self.readable && self.credit() == 0 {
                    self.deadline = Some(Instant::now() + CREDIT_TIMEOUT);
                }
                Ok(Sent { packets, bytes, ..Sent::default() })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.watched => {
                self.readable = false;
                Ok(Sent::default())
            }
            Err(_) => {
                // The host program has closed without reading all (ECONNRESET).
                self.readable = false;
                self.host_sends = false;
                self.host_stops_receiving();
                Ok(Sent::default())
            }
        }
    }
}
