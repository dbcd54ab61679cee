//! TCP/IP over frames of Ethernet, by smoltcp: frames of the guest in, frames for it out.

use std::collections::VecDeque;
use std::sync::Arc;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};

use super::Mmds;
use super::connection::{Connection, Outcome};
use super::frame::{self, Kind};
use crate::random;
use crate::rate_limiter::timer::Nanos;

/// The service's MAC address, which is Firecracker's.
pub const MAC_ADDRESS: [u8; 6] = [0x06, 0x01, 0x23, 0x45, 0x67, 0x01];

const PORT: u16 = 80;
/// Connections at a time. One more makes room for itself: that with the least patience left goes.
const MAX_CONNECTIONS: usize = 30;
/// Bytes of a connection that wait to be read, and to be acknowledged.
const BUFFER_LEN: usize = 8192;
/// Frames for the guest that wait for its buffers; while there are so many, its own frames are dropped.
const MAX_WAITING: usize = 64;
/// Longest frame to the guest: the MTU of Ethernet, with its header.
const MAX_FRAME_LEN: usize = 1514;
/// How long the guest may leave something unacknowledged.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rounds of reading and sending for one frame.
const MAX_ROUNDS: usize = 4;
/// How soon the rest is done, when they were not enough.
const SOON: Nanos = 1_000_000;
/// How soon is looked again for a guest that takes no frames; its next buffer is heard of at once.
const LATER: Nanos = 1_000_000_000;

/// The stack of one network interface. It exists once the guest has sent a frame to the service.
pub(crate) struct Stack {
    mmds: Arc<Mmds>,
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    connections: Vec<Connection>,
    /// What takes the next connection; there always is one.
    listener: SocketHandle,
    /// There is something left to do that no frame of the guest will remind of.
    unfinished: bool,
}

impl Stack {
    pub(crate) fn new(mmds: Arc<Mmds>, now: Nanos) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC_ADDRESS)));
        let mut seed = [0; 8];
        // Without it sequence numbers could be guessed, by the guest that gets them anyway.
        let _ = random::fill(&mut seed);
        config.random_seed = u64::from_ne_bytes(seed);
        let mut wire = Wire::default();
        let mut interface = Interface::new(config, &mut wire, instant(now));
        interface.update_ip_addrs(|addresses| {
            // Whatever address the guest has, it is on this link. There is room for one address.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(mmds.address, 0)));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let listener = sockets.add(listening());
        Self { mmds, interface, sockets, wire, connections: Vec::new(), listener, unfinished: false }
    }

    /// Takes a frame of the guest that is for the service.
    pub(crate) fn input(&mut self, mut frame: Vec<u8>, now: Nanos) {
        let metrics = &self.mmds.metrics;
        metrics.rx_accepted.increment();
        let (own_mac, own) = (EthernetAddress(MAC_ADDRESS), self.mmds.address);
        let kind = if self.wire.is_full() { None } else { frame::prepare(&mut frame, own_mac, own) };
        match kind {
            None => return metrics.rx_dropped.increment(),
            Some(Kind::First(sender, sender_mac)) => {
                self.wire.inbox = Some(frame::introduction((sender, sender_mac), (own, own_mac)));
                self.interface.poll_ingress_single(instant(now), &mut self.wire, &mut self.sockets);
            }
            Some(Kind::Arp | Kind::Other) => {}
        }
        self.wire.inbox = Some(frame);
        self.run(now);
    }

    /// The next frame for the guest.
    pub(crate) fn peek(&self) -> Option<&[u8]> {
        self.wire.outbox.front().map(Vec::as_slice)
    }

    /// The next frame is with the guest, or dropped.
    pub(crate) fn pop(&mut self, now: Nanos) {
        self.wire.outbox.pop_front();
        if self.wire.outbox.is_empty() {
            self.run(now);
        }
    }

    /// Does what is to be done at `now`.
    pub(crate) fn run(&mut self, now: Nanos) {
        self.unfinished = false;
        for round in 1.. {
            self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
            if !self.serve(now) {
                break;
            }
            if round >= MAX_ROUNDS {
                self.unfinished = true;
                break;
            }
        }
    }

    /// When to [`run`](Self::run) again, if no frame comes before.
    pub(crate) fn next_run(&mut self, now: Nanos) -> Option<Nanos> {
        let patience = self.connections.iter().map(|connection| connection.deadline).min();
        let due = self.interface.poll_at(instant(now), &self.sockets);
        let due = due.map(|at| u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000));
        let unfinished = self.unfinished.then_some(now);
        let earliest = now + if self.wire.outbox.is_empty() { SOON } else { LATER };
        [patience, due, unfinished].into_iter().flatten().min().map(|at| at.max(earliest))
    }

    /// Serves all connections. Whether there is something to send.
    fn serve(&mut self, now: Nanos) -> bool {
        let mut busy = false;
        if !self.sockets.get::<Socket<'_>>(self.listener).is_listening() {
            self.mmds.metrics.connections_created.increment();
            self.connections.push(Connection::new(self.listener, now));
            self.listener = self.sockets.add(listening());
            busy = true;
        }
        let Self { connections, sockets, mmds, .. } = self;
        if connections.len() > MAX_CONNECTIONS
            && let Some(oldest) = connections.iter_mut().min_by_key(|connection| connection.deadline)
        {
            oldest.deadline = now;
        }
        connections.retain_mut(|connection| {
            let socket = sockets.get_mut::<Socket<'_>>(connection.handle);
            if connection.deadline <= now && socket.is_open() {
                mmds.metrics.connections_aborted.increment();
                socket.abort();
                // It is dropped in the next round, when the guest has been told.
                busy = true;
                return true;
            }
            let outcome = connection.serve(socket, mmds, now);
            busy |= outcome == Outcome::Busy;
            if outcome == Outcome::Ended {
                mmds.metrics.connections_destroyed.increment();
                sockets.remove(connection.handle);
            }
            outcome != Outcome::Ended
        });
        busy
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.mmds.metrics.connections_destroyed.add(self.connections.len() as u64);
    }
}

fn instant(at: Nanos) -> Instant {
    Instant::from_micros(i64::try_from(at / 1000).unwrap_or(i64::MAX))
}

/// A socket that waits for a connection.
fn listening() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER_LEN]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_timeout(Some(TIMEOUT));
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    // Fails for port 0, or when it listens already.
    let _ = socket.listen(PORT);
    socket
}

/// The link, as the stack sees it.
#[derive(Default)]
struct Wire {
    inbox: Option<Vec<u8>>,
    outbox: VecDeque<Vec<u8>>,
}

impl Wire {
    fn is_full(&self) -> bool {
        self.outbox.len() >= MAX_WAITING
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        self.inbox.take().map(|frame| (Incoming(frame), Outgoing(&mut self.outbox)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        if self.is_full() { None } else { Some(Outgoing(&mut self.outbox)) }
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME_LEN;
        // A driver that leaves checksums to the device sends none.
        let checksum = &mut capabilities.checksum;
        (checksum.ipv4, checksum.tcp, checksum.icmpv4) = (Checksum::Tx, Checksum::Tx, Checksum::Tx);
        capabilities
    }
}
