//! A driver that gives a network device anything on both queues, and a peer that sends anything: packets of any length to
//! a device that takes its socket for a tap, cut-up frames and nonsense to one with a stream. The metadata service may be
//! behind it as well.
//!
//! Holds: no panic and no hang; memory stays bounded; whatever is sent is a frame; and after a reset the device works.
#![no_main]

mod driver;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::mmds::{Mmds, MmdsConfig, MmdsStore, MmdsVersion};
use devices::rate_limiter::{RateLimiterConfig, TokenBucketConfig};
use devices::virtio::net::{NetConfig, NetDevice, Peer};
use devices::virtio::queue_harness::{Buffer, Harness};
use libfuzzer_sys::fuzz_target;

const RX: u32 = 0;
const TX: u32 = 1;
const GUEST_CSUM: u64 = 1 << 1;
const MRG_RXBUF: u64 = 1 << 15;
const EVENT_IDX: u64 = 1 << 29;
const HEADER: usize = 12;

#[derive(Arbitrary, Debug)]
struct Input {
    pci: bool,
    stream: bool,
    mergeable: bool,
    event_idx: bool,
    limited: bool,
    /// The metadata service is behind it.
    mmds: bool,
    queue_size_log: u8,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    /// Good empty buffers.
    Offer {
        count: u8,
        len: u16,
    },
    /// A good packet, in two pieces.
    Put {
        len: u16,
        split: u8,
    },
    /// A TCP segment for the metadata service.
    Metadata {
        flags: u8,
        seq: u32,
        ack: u32,
        payload: Vec<u8>,
    },
    Queue(driver::Step),
    /// The peer sends a packet or a frame as it should be.
    Send {
        len: u16,
    },
    /// The peer sends anything.
    SendRaw(Vec<u8>),
    /// The peer reads what there is.
    Receive,
    Hang,
    Reset,
}

enum Other {
    Packets(UnixDatagram),
    Stream(Option<UnixStream>),
}

impl Other {
    fn send(&mut self, len: usize) {
        match self {
            Self::Packets(socket) => drop(socket.send(&vec![0; HEADER + len])),
            Self::Stream(Some(socket)) => {
                let frame = [&(len as u32).to_be_bytes()[..], &vec![7; len]].concat();
                let _ = socket.write_all(&frame);
            }
            Self::Stream(None) => {}
        }
    }

    fn send_raw(&mut self, data: &[u8]) {
        match self {
            Self::Packets(socket) => drop(socket.send(data)),
            Self::Stream(Some(socket)) => drop(socket.write_all(data)),
            Self::Stream(None) => {}
        }
    }

    /// Reads what there is into `buffer`, which has room for the longest packet.
    fn receive(&mut self, buffer: &mut [u8]) {
        match self {
            Self::Packets(socket) => {
                while let Ok(len) = socket.recv(buffer) {
                    assert!((HEADER + 14..=65562).contains(&len), "{len} bytes are no packet");
                }
            }
            Self::Stream(Some(socket)) => while matches!(socket.read(buffer), Ok(1..)) {},
            Self::Stream(None) => {}
        }
    }
}

fn metadata_service() -> Arc<Mmds> {
    let store = Arc::new(MmdsStore::default());
    store.put(serde_json::json!({"id": "i-1"})).unwrap();
    let config = MmdsConfig {
        network_interfaces: vec!["fuzz".to_owned()],
        version: MmdsVersion::V1,
        ipv4_address: None,
        imds_compat: false,
    };
    Arc::new(Mmds::new(&config, store))
}

/// A packet with a segment for port 80 of the metadata service, without checksums.
fn segment(flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet.extend([6, 1, 0x23, 0x45, 0x67, 1, 2, 0, 0, 0, 0, 7, 8, 0, 0x45, 0]);
    packet.extend((40 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 7, 169, 254, 169, 254]);
    packet.extend([3, 232, 0, 80]);
    packet.extend([seq, ack].map(u32::to_be_bytes).as_flattened());
    packet.extend([5 << 4, flags, 0xff, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(payload);
    packet
}

thread_local! {
    /// Kept: AddressSanitizer takes long to allocate so much.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 1 << 17]);
}

fuzz_target!(|input: Input| BUFFER.with_borrow_mut(|buffer| run(input, buffer)));

fn run(input: Input, buffer: &mut [u8]) {
    // As the runtime of a Rust program does before `main`: a stream whose peer is gone is an error and no signal.
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let limit = input.limited.then_some(RateLimiterConfig {
        bandwidth: Some(TokenBucketConfig { size: 5000, refill_time: 100, one_time_burst: None }),
        ops: None,
    });
    let config = NetConfig {
        iface_id: "fuzz".into(),
        rx_rate_limiter: limit.clone(),
        tx_rate_limiter: limit,
        ..NetConfig::default()
    };
    let (peer, mut other) = if input.stream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Peer::Stream(theirs), Other::Stream(Some(ours)))
    } else {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Peer::Packets(OwnedFd::from(theirs)), Other::Packets(ours))
    };
    let mut device = NetDevice::over_socket(&config, peer).unwrap();
    if input.mmds {
        device.add_detour(metadata_service()).unwrap();
    }
    let mut harness = Harness::behind(driver::transport(input.pci), Arc::new(Mutex::new(device)));
    let features = if input.mergeable { MRG_RXBUF } else { 0 }
        | if input.event_idx { EVENT_IDX } else { 0 }
        | if input.stream { GUEST_CSUM } else { 0 };
    let queue_size = 1 << (input.queue_size_log % 9);
    harness.start(features, queue_size);

    for action in input.actions.into_iter().take(64) {
        match action {
            Action::Offer { count, len } => {
                let address = 2 << 20;
                for at in 0..u64::from(count % 64) {
                    harness.add_chain(RX, &[Buffer::writable(address + at * 0x1000, u32::from(len))]);
                }
                harness.kick(RX);
            }
            Action::Put { len, split } => {
                let (address, len) = (3 << 20, 12 + u32::from(len));
                let split = u32::from(split).min(len);
                harness.add_chain(
                    TX,
                    &[
                        Buffer::readable(address, split),
                        Buffer::readable(address + u64::from(split), len - split),
                    ],
                );
                harness.kick(TX);
            }
            Action::Metadata { flags, seq, ack, payload } => {
                let packet = segment(flags, seq, ack, &payload[..payload.len().min(1400)]);
                let address = 3 << 20;
                vm_memory::Bytes::write_slice(harness.memory(), &packet, vm_memory::GuestAddress(address))
                    .unwrap();
                harness.add_chain(TX, &[Buffer::readable(address, packet.len() as u32)]);
                harness.kick(TX);
            }
            Action::Queue(step) => drop(step.take(&mut harness, 2)),
            Action::Send { len } => other.send(usize::from(len)),
            Action::SendRaw(data) => other.send_raw(&data),
            Action::Receive => other.receive(buffer),
            Action::Hang => {
                if let Other::Stream(socket) = &mut other {
                    *socket = None;
                }
            }
            Action::Reset => harness.start(features, queue_size),
        }
    }
    harness.kick(RX);
    other.receive(buffer);
    harness.kick(TX);
    other.receive(buffer);

    harness.start(0, 16);
    assert!(!harness.needs_reset());
    let address = harness.place(&[0; 100]);
    harness.add_chain(TX, &[Buffer::readable(address, 100)]);
    harness.kick(TX);
    if !input.limited {
        let mut used = harness.take_used(TX);
        for _ in 0..100 {
            if !used.is_empty() {
                break;
            }
            other.receive(buffer);
            harness.kick(TX);
            used = harness.take_used(TX);
        }
        assert_eq!(used.len(), 1);
    }
}
