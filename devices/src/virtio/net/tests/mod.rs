//! The device, driven by the mock driver, with a socket at its other end: one that keeps packets apart is a tap without
//! offloads, a stream is passt.

mod config;
mod hostile;
mod limits;
mod metadata;
mod packets;
mod restore;
mod stream;
mod vhost;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::*;
use crate::metrics::NetMetrics;
use crate::virtio::queue_harness::{Buffer, Harness, Used};

const RX: u32 = 0;
const TX: u32 = 1;
const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const STATUS: u64 = 1 << VIRTIO_NET_F_STATUS;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const HEADER: usize = 12;

fn config() -> NetConfig {
    NetConfig {
        iface_id: "net0".to_owned(),
        host_dev_name: Some("tap0".to_owned()),
        guest_mac: Some("02:00:00:00:00:07".parse().unwrap()),
        ..NetConfig::default()
    }
}

/// A device that a driver drives, and what the test has of it.
struct Fixture<P> {
    harness: Harness,
    device: Arc<Mutex<NetDevice>>,
    metrics: Arc<NetMetrics>,
    peer: P,
}

impl<P> Fixture<P> {
    fn new(config: &NetConfig, other_end: Peer, peer: P) -> Self {
        let device = NetDevice::over_socket(config, other_end).unwrap();
        let metrics = device.metrics();
        let device = Arc::new(Mutex::new(device));
        Self { harness: Harness::with_shared(device.clone()), device, metrics, peer }
    }

    /// Lets the device do what it has to do.
    fn settle(&mut self) {
        while self.harness.run_once(Duration::ZERO) {}
    }

    /// Makes `count` empty buffers of `len` bytes available, and returns their addresses.
    fn offer(&mut self, count: usize, len: u32) -> Vec<u64> {
        let addresses: Vec<u64> = (0..count).map(|_| self.harness.allocate(len, 0xee)).collect();
        for address in &addresses {
            self.harness.add_chain(RX, &[Buffer::writable(*address, len)]);
        }
        addresses
    }

    /// Makes a packet with this frame available.
    fn put(&mut self, frame: &[u8]) {
        let packet = [&[0; HEADER][..], frame].concat();
        let address = self.harness.place(&packet);
        self.harness.add_chain(TX, &[Buffer::readable(address, packet.len() as u32)]);
    }

    fn lens(&mut self, queue: u32) -> Vec<u32> {
        self.harness.take_used(queue).iter().map(|used| used.len).collect()
    }
}

/// A device with a socket that keeps packets apart.
fn tap(features: u64) -> Fixture<UnixDatagram> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).unwrap();
    }
    let mut fixture = Fixture::new(&config(), Peer::Packets(OwnedFd::from(theirs)), ours);
    fixture.harness.start(features, 64);
    fixture
}

/// A device with a stream.
fn passt(features: u64) -> Fixture<UnixStream> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut fixture = Fixture::new(&config(), Peer::Stream(theirs), ours);
    fixture.harness.start(features, 64);
    fixture
}

/// A frame of `len` bytes that no other `seed` has.
fn frame(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add(at as u8).wrapping_mul(31)).collect()
}
