//! One stream between a program in the guest and one on the host: which packets it owes the guest, how much each side
//! may send, and how each way ends.
//!
//! Nothing here waits. What the host's socket does not take is kept, and is never more than the guest was given credit
//! for; what the guest has no credit for stays in the host's socket.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vm_memory::Permissions;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::backlog::Backlog;
use super::packet::{
    HOST_CID, Header, Op, Ports, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use super::rx_queue::RxQueue;
use super::stream::Stream;
use crate::GuestMemory;
use crate::virtio::device::DeviceError;
use crate::virtio::segments::Segments;

/// How long the guest may take to answer that a host program wants to connect.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the guest may take to acknowledge that a connection is shut both ways, before it is told that it is gone.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a host program may read nothing of what a guest left behind when it closed, before it is dropped.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for credit before it asks for it.
const CREDIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Receive buffers that one system call fills when a host program sends more than one of them holds.
const BUFFERS_PER_READ: usize = 32;
/// Bytes that one system call reads at most.
const BYTES_PER_READ: u64 = 256 << 10;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The guest is asked whether it wants the connection of a host program.
    Requested,
    /// Data may go both ways.
    Established,
    /// The guest was told that nothing comes any more, and has not acknowledged it yet.
    Closing,
    /// The guest has closed; what it sent goes on to the host program.
    Lingering,
    /// All is over, but for a RST that the guest may still have to be told.
    Over,
}

/// The packets that a connection owes the guest, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owed(u8);

impl Owed {
    const REQUEST: Self = Self(1 << 0);
    const RESPONSE: Self = Self(1 << 1);
    const RST: Self = Self(1 << 2);
    const CREDIT_UPDATE: Self = Self(1 << 3);
    const CREDIT_REQUEST: Self = Self(1 << 4);

    fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn take(&mut self, other: Self) -> bool {
        let taken = self.contains(other);
        self.0 &= !other.0;
        taken
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A guest that does not keep to the protocol; its connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// It sent more than it had credit for, or says that it took more than it was sent.
    Credit,
    /// A packet that means nothing here and now.
    Packet,
}

/// What a turn of a connection came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Packets to the guest.
    pub(super) packets: u64,
    /// Bytes of data in them.
    pub(super) bytes: u64,
    /// One of them was a RST.
    pub(super) reset: bool,
    /// One of them was an update of the credit.
    pub(super) credit_update: bool,
}

/// One connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each way can be shut at either end, whatever the others are"
)]
pub(super) struct Connection {
    ports: Ports,
    guest_cid: u64,
    /// The host program's end; none once the connection is over.
    stream: Option<Stream>,
    phase: Phase,
    owed: Owed,
    rst_sent: bool,
    /// When something happens if nothing else does.
    deadline: Option<Instant>,

    // From the guest to the host.
    /// Bytes that the guest may have on the way: `buf_alloc` of what is sent to it.
    window: u32,
    /// Bytes that came, modulo 2^32.
    received: u32,
    /// Bytes that the host took, modulo 2^32: `fwd_cnt` of what is sent to the guest.
    forwarded: u32,
    /// What the guest knows of `forwarded`.
    announced: u32,
    /// What the host's socket has not taken yet.
    backlog: Backlog,
    guest_sends: bool,
    host_receives: bool,

    // From the host to the guest.
    /// Bytes that were sent, modulo 2^32.
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// The host's socket has something to read, as far as is known.
    readable: bool,
    /// The last read filled a whole buffer: the next one is offered many.
    bulk: bool,
    guest_receives: bool,
    host_sends: bool,
    /// Which ways the guest was told to be shut.
    told: u32,

    /// What epoll watches the socket for.
    interest: EventSet,
    watched: bool,
}

impl Connection {
    /// The connection that the guest asks for by `request`, to a host program that took it.
    pub(super) fn from_guest(request: &Header, stream: Stream, window: u32) -> Self {
        let mut connection = Self::new(request.ports(), request.src_cid, stream, window);
        connection.phase = Phase::Established;
        connection.owed.insert(Owed::RESPONSE);
        connection.peer_buf_alloc = request.buf_alloc;
        connection.peer_fwd_cnt = 0;
        connection
    }

    /// The connection that a host program asks for.
    pub(super) fn from_host(ports: Ports, guest_cid: u64, stream: Stream, window: u32) -> Self {
        let mut connection = Self::new(ports, guest_cid, stream, window);
        connection.owed.insert(Owed::REQUEST);
        connection.deadline = Some(Instant::now() + REQUEST_TIMEOUT);
        connection
    }

    fn new(ports: Ports, guest_cid: u64, stream: Stream, window: u32) -> Self {
        Self {
            ports,
            guest_cid,
            stream: Some(stream),
            phase: Phase::Requested,
            owed: Owed::default(),
            rst_sent: false,
            deadline: None,
            window,
            received: 0,
            forwarded: 0,
            announced: 0,
            backlog: Backlog::default(),
            guest_sends: true,
            host_receives: true,
            sent: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
            readable: false,
            bulk: false,
            guest_receives: true,
            host_sends: true,
            told: 0,
            interest: EventSet::empty(),
            watched: false,
        }
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    pub(super) fn window(&self) -> u32 {
        self.window
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Nothing is left to do: it can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.owed.is_empty()
    }

    /// The guest knows nothing of it any more: its ports can be those of another.
    pub(super) fn is_detached(&self) -> bool {
        self.phase == Phase::Lingering && self.rst_sent
    }

    /// There is something to send to the guest, if it has a buffer.
    pub(super) fn has_work(&self) -> bool {
        !self.owed.is_empty() || self.can_send_data() || self.shutdown_due() != 0
    }

    /// Resets the connection.
    pub(super) fn kill(&mut self) {
        let guest_knows = !self.owed.contains(Owed::REQUEST) && !self.rst_sent && self.phase != Phase::Over;
        let owed = self.phase == Phase::Over && self.owed.contains(Owed::RST);
        self.forget();
        if guest_knows || owed {
            self.owed.insert(Owed::RST);
        }
    }

    /// Ends the connection without a word to the guest.
    fn forget(&mut self) {
        self.stream = None;
        self.watched = false;
        self.backlog = Backlog::default();
        self.phase = Phase::Over;
        self.owed = Owed::default();
        self.deadline = None;
    }

    // What the guest says.

    /// Takes a packet of the guest, but for its data, which [`take_data`](Self::take_data) has after this.
    ///
    /// # Errors
    /// When the guest must not say this here and now. The connection has to be killed.
    pub(super) fn take_packet(&mut self, header: &Header) -> Result<(), Violation> {
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
    pub(super) fn take_data(&mut self, memory: &GuestMemory, mut data: Segments) -> Result<(), Violation> {
        let Some(stream) = self.stream.as_ref().filter(|_| self.host_receives) else {
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
    fn forward(&mut self, count: u32) {
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

    // What the host's socket says.

    /// Epoll says that the socket is `ready`, by `token`. Of what was known already it would tell again and again, so it
    /// is told to stop.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn socket_ready(&mut self, ready: EventSet, epoll: &Epoll, token: u64) -> io::Result<()> {
        if ready.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            if let Some(stream) = self.stream.as_ref().filter(|_| self.watched) {
                epoll.ctl(ControlOperation::Delete, stream.as_raw_fd(), EpollEvent::default())?;
            }
            self.watched = false;
            self.hang_up();
            return Ok(());
        }
        let news = self.needed();
        if ready.contains(EventSet::IN) {
            self.readable = true;
        }
        if ready.contains(EventSet::OUT) {
            self.flush();
        }
        if news.contains(ready) { Ok(()) } else { self.set_interest(epoll, token, self.needed()) }
    }

    /// The host program has closed, or no way is open any more. Nothing can be written, and reading comes to an end.
    fn hang_up(&mut self) {
        match self.phase {
            Phase::Requested => return self.kill(),
            Phase::Lingering => return self.end_linger(),
            Phase::Established | Phase::Closing | Phase::Over => {}
        }
        self.host_stops_receiving();
        self.readable = true;
        if !self.guest_receives {
            self.host_sends = false;
        }
    }

    fn host_stops_receiving(&mut self) {
        self.host_receives = false;
        let dropped = self.backlog.len() as u32;
        self.backlog = Backlog::default();
        self.forward(dropped);
        if self.phase == Phase::Lingering {
            self.end_linger();
        }
    }

    /// Writes what the socket takes of what it did not take at once.
    fn flush(&mut self) {
        let Some(stream) = &self.stream else { return };
        if self.backlog.is_empty() {
            return;
        }
        match self.backlog.flush(|bytes| retry(|| stream.write(bytes))) {
            Ok(count) => {
                self.forward(count as u32);
                if self.phase == Phase::Lingering && count > 0 {
                    self.deadline = Some(Instant::now() + LINGER_TIMEOUT);
                }
            }
            Err(_) => return self.host_stops_receiving(),
        }
        if self.backlog.is_empty() {
            if self.phase == Phase::Lingering {
                self.end_linger();
            } else if !self.guest_sends {
                self.shutdown_stream(Shutdown::Write);
            }
        }
    }

    fn end_linger(&mut self) {
        let owed = self.owed;
        self.forget();
        self.owed = owed;
    }

    fn shutdown_stream(&self, how: Shutdown) {
        if let Some(stream) = &self.stream {
            stream.shutdown(how);
        }
    }

    /// The deadline has passed at `now`.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        match self.phase {
            Phase::Requested | Phase::Closing => self.kill(),
            Phase::Lingering => self.end_linger(),
            Phase::Established => self.owed.insert(Owed::CREDIT_REQUEST),
            Phase::Over => {}
        }
    }

    // What the guest is sent.

    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        self.peer_buf_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_fwd_cnt))
    }

    fn wants_data(&self) -> bool {
        self.phase == Phase::Established && self.guest_receives && self.host_sends
    }

    fn can_send_data(&self) -> bool {
        self.wants_data() && self.readable && self.credit() > 0
    }

    /// The ways that the guest has yet to be told are shut.
    fn shutdown_due(&self) -> u32 {
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
    pub(super) fn send(&mut self, rx: &mut RxQueue) -> Result<Sent, DeviceError> {
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
        let room = rx.room(buffers, limit);
        // Checked when the buffers were taken.
        let Ok(iovecs) = room.iovecs(rx.memory(), Permissions::Write) else { return Ok(Sent::default()) };
        match retry(|| stream.read_vectored(&iovecs)) {
            Ok(0) => {
                self.readable = false;
                self.host_sends = false;
                Ok(Sent::default())
            }
            Ok(count) => {
                let bytes = count as u64;
                // Less than there was room for: the socket is empty.
                self.readable = bytes == room.len() || !self.watched;
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

    // What epoll watches.

    /// Has epoll tell of the socket by `token`.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn watch(&mut self, epoll: &Epoll, token: u64, operation: ControlOperation) -> io::Result<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        self.interest = self.needed();
        epoll.ctl(operation, stream.as_raw_fd(), EpollEvent::new(self.interest, token))?;
        self.watched = true;
        Ok(())
    }

    /// What has to be told of: only what is not known already.
    fn needed(&self) -> EventSet {
        let mut needed = EventSet::empty();
        needed.set(EventSet::IN, self.wants_data() && !self.readable);
        needed.set(EventSet::OUT, !self.backlog.is_empty());
        needed
    }

    /// Has epoll tell of what is needed now. What it tells of besides stays until it is of no use once more: a change
    /// of interest is a system call.
    pub(super) fn renew_interest(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        self.set_interest(epoll, token, self.interest | self.needed())
    }

    fn set_interest(&mut self, epoll: &Epoll, token: u64, interest: EventSet) -> io::Result<()> {
        let Some(stream) = self.stream.as_ref().filter(|_| self.watched && interest != self.interest) else {
            return Ok(());
        };
        epoll.ctl(ControlOperation::Modify, stream.as_raw_fd(), EpollEvent::new(interest, token))?;
        self.interest = interest;
        Ok(())
    }
}

/// Does it again when a signal came between.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
