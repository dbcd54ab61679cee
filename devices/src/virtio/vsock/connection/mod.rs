//! One stream between a program in the guest and one on the host: which packets it owes the guest, how much each side
//! may send, and how each way ends.
//!
//! Nothing here waits. What the host's socket does not take is kept, and is never more than the guest was given credit
//! for; what the guest has no credit for stays in the host's socket.

mod from_guest;
mod from_host;
mod to_guest;

use std::io;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::EventSet;

use super::backlog::Backlog;
use super::packet::{Header, Ports};
use super::stream::Stream;

/// How long the guest may take to answer that a host program wants to connect.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a host program may read nothing of what a guest left behind when it closed, before it is dropped.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);

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

/// What the guest knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awareness {
    /// Nothing, or that it is over.
    None,
    /// That it is there.
    Connected,
    /// That it has asked for it, or has closed it, and waits for an answer.
    AwaitsAnswer,
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

    /// What the guest knows of it.
    pub(super) fn awareness(&self) -> Awareness {
        if self.owed.contains(Owed::RST) || self.owed.contains(Owed::RESPONSE) {
            Awareness::AwaitsAnswer
        } else if self.owed.contains(Owed::REQUEST) || self.rst_sent || self.phase == Phase::Over {
            Awareness::None
        } else {
            Awareness::Connected
        }
    }

    /// Resets the connection.
    pub(super) fn kill(&mut self) {
        let awareness = self.awareness();
        self.forget();
        if awareness != Awareness::None {
            self.owed.insert(Owed::RST);
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

    /// Ends the connection without a word to the guest.
    fn forget(&mut self) {
        self.stream = None;
        self.watched = false;
        self.backlog = Backlog::default();
        self.phase = Phase::Over;
        self.owed = Owed::default();
        self.deadline = None;
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
