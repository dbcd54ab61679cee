//! A device with a way to the metadata service: what a guest gets by it, and what the backend gets to see.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;
use smoltcp::iface::SocketHandle;
use smoltcp::wire::TcpControl;
use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4};

use super::*;
use crate::clock;
use crate::mmds::tests::guest::{GUEST_ADDRESS, GUEST_MAC, Guest, Segment, parse};
use crate::mmds::{MAC_ADDRESS, Mmds, MmdsConfig, MmdsStore, MmdsVersion};
use crate::rate_limiter::{RateLimiterConfig, TokenBucketConfig};

const BUFFER_LEN: u32 = 2000;

fn metadata(version: MmdsVersion) -> Arc<Mmds> {
    let store = Arc::new(MmdsStore::default());
    store.put(json!({"id": "i-1", "long": "x".repeat(50_000)})).unwrap();
    let config = MmdsConfig {
        network_interfaces: vec!["net0".to_owned()],
        version,
        ipv4_address: None,
        imds_compat: false,
    };
    Arc::new(Mmds::new(&config, store))
}

/// A device with the service, a driver, and a guest above it.
struct Machine<P> {
    net: Fixture<P>,
    mmds: Arc<Mmds>,
    guest: Guest,
    /// Where the driver's buffers are, by the heads of their chains.
    buffers: HashMap<u32, u64>,
    sending: u64,
    /// Frames that the guest got and that are not of the service.
    others: Vec<Vec<u8>>,
    /// Whether each frame that the guest got was of the service.
    order: Vec<bool>,
}

impl<P> Machine<P> {
    fn new(config: &NetConfig, other_end: Peer, peer: P, features: u64, version: MmdsVersion) -> Self {
        let mmds = metadata(version);
        let mut device = NetDevice::over_socket(config, other_end).unwrap();
        device.add_detour(mmds.clone()).unwrap();
        let metrics = device.metrics();
        let device = Arc::new(Mutex::new(device));
        let harness = Harness::with_shared(device.clone());
        let net = Fixture { harness, device, metrics, peer };
        let mut machine = Self {
            net,
            mmds,
            guest: Guest::new(),
            buffers: HashMap::new(),
            sending: 0,
            others: Vec::new(),
            order: Vec::new(),
        };
        machine.start(features);
        machine
    }

    fn start(&mut self, features: u64) {
        self.net.harness.start(features, 64);
        self.sending = self.net.harness.allocate(70_000, 0);
        self.buffers.clear();
        for _ in 0..32 {
            let address = self.net.harness.allocate(BUFFER_LEN, 0xee);
            self.offer(address);
        }
        self.net.harness.kick(RX);
    }

    fn offer(&mut self, address: u64) {
        let head = self.net.harness.add_chain(RX, &[Buffer::writable(address, BUFFER_LEN)]);
        self.buffers.insert(u32::from(head), address);
    }

    /// The driver sends a packet.
    fn transmit(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let packet = [&header, frame].concat();
        vm_memory::Bytes::write_slice(
            self.net.harness.memory(),
            &packet,
            vm_memory::GuestAddress(self.sending),
        )
        .unwrap();
        let buffer = Buffer::readable(self.sending, packet.len() as u32);
        self.net.harness.add_chain(TX, &[buffer]);
        self.net.harness.kick(TX);
        assert_eq!(self.net.lens(TX), [0]);
    }

    /// What the driver got.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let used = self.net.harness.take_used(RX);
        let mut frames = Vec::new();
        for Used { head, len } in used {
            let address = self.buffers.remove(&head).unwrap();
            let packet = self.net.harness.fetch(address, len as usize);
            assert_eq!(packet[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "checksums are complete");
            frames.push(packet[HEADER..].to_vec());
            self.offer(address);
        }
        if !frames.is_empty() {
            self.net.harness.kick(RX);
        }
        frames
    }

    /// Lets both sides do what they have to do.
    fn settle(&mut self) {
        loop {
            let sent = self.guest.poll(clock::monotonic());
            for frame in &sent {
                self.transmit([0; HEADER], frame);
            }
            self.net.settle();
            let got = self.received();
            let idle = sent.is_empty() && got.is_empty();
            for frame in got {
                let of_service = frame[6..12] == MAC_ADDRESS;
                self.order.push(of_service);
                if of_service {
                    self.guest.give(frame);
                } else {
                    self.others.push(frame);
                }
            }
            if idle {
                return;
            }
        }
    }

    fn connect(&mut self) -> SocketHandle {
        let handle = self.guest.connect();
        self.settle();
        handle
    }

    fn ask(&mut self, handle: SocketHandle, request: &str) -> String {
        self.guest.send(handle, request.as_bytes());
        self.settle();
        String::from_utf8(self.guest.receive(handle)).unwrap()
    }

    fn get(&mut self, path: &str) -> String {
        let handle = self.connect();
        let answer = self.ask(handle, &format!("GET /{path} HTTP/1.1\r\nConnection: close\r\n\r\n"));
        self.guest.close(handle);
        self.settle();
        answer
    }
}

fn packets(config: &NetConfig, features: u64, version: MmdsVersion) -> Machine<UnixDatagram> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).unwrap();
    }
    Machine::new(config, Peer::Packets(OwnedFd::from(theirs)), ours, features, version)
}

fn stream(features: u64, version: MmdsVersion) -> Machine<UnixStream> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    Machine::new(&config(), Peer::Stream(theirs), ours, features, version)
}

#[test]
fn a_guest_reads_metadata_and_the_network_sees_nothing_of_it() {
    for features in [0, MERGEABLE, MERGEABLE | EVENT_IDX] {
        let mut tap = packets(&config(), features, MmdsVersion::V1);
        assert!(tap.get("id").ends_with("\r\n\r\ni-1"));
        assert!(tap.get("long").ends_with(&format!("\r\n\r\n{}", "x".repeat(50_000))));
        assert_eq!(tap.net.peer.recv(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(tap.net.metrics.tx_frames.get(), 0);
        let metrics = tap.mmds.metrics();
        assert_eq!((metrics.requests.get(), metrics.connections_created.get()), (2, 2));
        assert_eq!(metrics.tx_frames.get(), tap.net.metrics.rx_frames.get());

        let mut passt = stream(features, MmdsVersion::V1);
        assert!(passt.get("long").ends_with(&format!("\r\n\r\n{}", "x".repeat(50_000))));
        assert_eq!(passt.net.peer.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_guest_gets_a_token_and_reads_with_it_by_one_connection() {
    let mut tap = packets(&config(), 0, MmdsVersion::V2);
    let handle = tap.connect();
    assert!(tap.ask(handle, "GET /id HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 401 "));
    let answer =
        tap.ask(handle, "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n");
    let (_, token) = answer.split_once("\r\n\r\n").unwrap();
    let answer = tap.ask(handle, &format!("GET /id HTTP/1.1\r\nX-metadata-token: {token}\r\n\r\n"));
    assert!(answer.ends_with("\r\n\r\ni-1"), "{answer}");
}

#[test]
fn an_answer_to_arp_comes_without_any_peer() {
    let mut tap = packets(&config(), 0, MmdsVersion::V1);
    let ask = |target: [u8; 4]| {
        let mut arp = [&[0xff; 6][..], &GUEST_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &GUEST_MAC].concat();
        arp.extend_from_slice(&GUEST_ADDRESS);
        arp.extend_from_slice(&[0; 6]);
        arp.extend_from_slice(&target);
        arp
    };
    tap.transmit([0; HEADER], &ask([169, 254, 169, 254]));
    let [answer] = &tap.received()[..] else { panic!("one answer") };
    assert_eq!((&answer[..6], &answer[6..12], answer[21]), (&GUEST_MAC[..], &MAC_ADDRESS[..], 2));
    assert_eq!((&answer[22..28], &answer[28..32]), (&MAC_ADDRESS[..], &[169, 254, 169, 254][..]));
    // The neighbours are the network's business.
    tap.transmit([0; HEADER], &ask([169, 254, 169, 253]));
    let mut got = [0; 100];
    assert_eq!(tap.net.peer.recv(&mut got).unwrap(), HEADER + 42);
    assert_eq!(tap.received().len(), 0);
}

#[test]
fn frames_for_others_go_to_the_network() {
    let mut tap = packets(&config(), 0, MmdsVersion::V1);
    let mut other = Segment::syn(GUEST_ADDRESS, 5000).frame();
    other[14 + 16..14 + 20].copy_from_slice(&[10, 0, 0, 1]);
    let mut ipv6 = Segment::syn(GUEST_ADDRESS, 5000).frame();
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    let short = vec![8; 20];
    for frame in [other, ipv6, short] {
        tap.transmit([0; HEADER], &frame);
        let mut got = [0; 200];
        assert_eq!(tap.net.peer.recv(&mut got).unwrap(), HEADER + frame.len());
        assert_eq!(got[HEADER..HEADER + frame.len()], frame);
    }
    assert_eq!(tap.mmds.metrics().rx_accepted.get(), 0);
}

#[test]
fn a_frame_that_leaves_its_checksum_and_segments_to_the_device_is_understood() {
    let mut tap = packets(&config(), MERGEABLE, MmdsVersion::V1);
    // By way of a router, whose address the frame has.
    let mut syn = Segment::syn(GUEST_ADDRESS, 5000).frame();
    syn[..6].copy_from_slice(&[0x52, 0x55, 10, 0, 2, 2]);
    let csum = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
    // csum_start and csum_offset of TCP behind IPv4.
    tap.transmit([csum, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], &syn);
    let (control, seq, ack, _) = parse(&tap.received()[0]);
    assert_eq!((control, ack), (TcpControl::Syn, Some(1001)));
    let request = format!("GET /id HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(6000));
    let segment = Segment {
        control: TcpControl::Psh,
        seq: 1001,
        ack: Some(seq.wrapping_add(1)),
        payload: request.as_bytes(),
        ..Segment::syn(GUEST_ADDRESS, 5000)
    };
    let gso = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
    let [low, high] = 1460_u16.to_le_bytes();
    tap.transmit([csum, gso, 54, 0, low, high, 34, 0, 16, 0, 0, 0], &segment.frame());
    let payload: Vec<u8> = tap.received().iter().flat_map(|frame| parse(frame).3).collect();
    assert!(payload.ends_with(b"\r\n\r\ni-1"), "{}", String::from_utf8_lossy(&payload));
}

#[test]
fn frames_of_the_network_and_answers_take_turns() {
    let mut tap = packets(&config(), 0, MmdsVersion::V1);
    let handle = tap.connect();
    tap.order.clear();
    for seed in 0..10 {
        tap.net.peer.send(&[&[0; HEADER][..], &frame(seed, 100)].concat()).unwrap();
    }
    // Both are there before the guest takes either.
    tap.guest.send(handle, b"GET /long HTTP/1.1\r\n\r\n");
    tap.settle();
    assert!(tap.guest.receive(handle).len() > 50_000);
    assert_eq!(tap.others, (0..10).map(|seed| frame(seed, 100)).collect::<Vec<_>>());

    // The same while the driver has no buffers at first.
    let mut tap = packets(&config(), 0, MmdsVersion::V1);
    let handle = tap.connect();
    tap.order.clear();
    tap.net.harness.start(0, 64);
    tap.buffers.clear();
    let _ = handle;
    let syns = 10;
    for seed in 0..syns {
        tap.net.peer.send(&[&[0; HEADER][..], &frame(seed, 100)].concat()).unwrap();
        tap.transmit([0; HEADER], &Segment::syn(GUEST_ADDRESS, 6000 + u16::from(seed)).frame());
    }
    for _ in 0..20 {
        let address = tap.net.harness.allocate(BUFFER_LEN, 0xee);
        tap.offer(address);
    }
    tap.net.harness.kick(RX);
    let order: Vec<bool> = tap.received().iter().map(|frame| frame[6..12] == MAC_ADDRESS).collect();
    assert_eq!(order.len(), 20);
    assert!(order.windows(3).all(|window| window.contains(&true) && window.contains(&false)), "{order:?}");
}

#[test]
fn half_a_frame_of_the_network_is_not_mixed_with_answers() {
    let mut passt = stream(MERGEABLE, MmdsVersion::V1);
    let handle = passt.connect();
    let long = frame(3, 1400);
    let bytes = [&1400_u32.to_be_bytes()[..], &long].concat();
    passt.net.peer.write_all(&bytes[..700]).unwrap();
    passt.settle();
    passt.guest.send(handle, b"GET /id HTTP/1.1\r\n\r\n");
    passt.settle();
    assert_eq!(passt.guest.receive(handle), b"", "waits for the rest");
    passt.net.peer.write_all(&bytes[700..]).unwrap();
    passt.settle();
    assert_eq!(passt.others, [long]);
    assert!(passt.guest.receive(handle).ends_with(b"i-1"));
}

#[test]
fn a_frame_that_fits_no_buffer_is_dropped_and_others_come() {
    let mut tap = packets(&config(), 0, MmdsVersion::V1);
    tap.net.harness.start(0, 64);
    tap.net.offer(2, 60);
    tap.net.harness.kick(RX);
    tap.transmit([0; HEADER], &Segment::syn(GUEST_ADDRESS, 5000).frame());
    tap.net.peer.send(&[0; HEADER + 40]).unwrap();
    tap.net.settle();
    assert_eq!(tap.net.lens(RX), [HEADER as u32 + 40]);
    assert!(tap.mmds.metrics().tx_dropped.get() >= 1);
}

#[test]
fn the_limits_of_the_interface_hold() {
    let bucket = TokenBucketConfig { size: 4, refill_time: 40, one_time_burst: None };
    let limit = RateLimiterConfig { bandwidth: None, ops: Some(bucket) };
    let config = NetConfig { rx_rate_limiter: Some(limit), ..config() };
    let mut tap = packets(&config, 0, MmdsVersion::V1);
    let begin = Instant::now();
    let handle = tap.connect();
    tap.guest.send(handle, b"GET /long HTTP/1.1\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    while answer.len() < 50_000 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} bytes", answer.len());
        tap.settle();
        tap.net.harness.run_once(Duration::from_millis(20));
        answer.extend(tap.guest.receive(handle));
    }
    // 35 frames at 100 a second.
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
}

#[test]
fn a_driver_that_resets_the_device_begins_anew() {
    let mut tap = packets(&config(), 0, MmdsVersion::V1);
    let handle = tap.connect();
    tap.guest.send(handle, b"GET /lo");
    tap.settle();
    assert_eq!(tap.mmds.metrics().connections_created.get(), 1);
    tap.start(MERGEABLE);
    assert_eq!(tap.mmds.metrics().connections_destroyed.get(), 1);
    tap.guest = Guest::new();
    assert!(tap.get("id").ends_with("i-1"));
}
