//! A guest that sends the metadata service anything: frames of bytes, and segments of connections that are more or less
//! right, with requests that are more or less requests; time passes, and answers are read or left.
//!
//! Holds: no panic and no hang; frames and connections stay bounded; once the guest is quiet, so is the service; and a
//! connection as it should be is served after all that.
#![no_main]

use arbitrary::Arbitrary;
use devices::mmds::{FrameHarness, MmdsVersion};
use libfuzzer_sys::fuzz_target;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
const FLOWS: usize = 40;

const REQUESTS: [&[u8]; 8] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /long HTTP/1.1\r\nAccept: application/json\r\n\r\n",
    b"PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n",
    b"GET /id HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"GET /id HTTP/1.1\r\nX-metadata-token: 00",
    b"POST / HTTP/1.0\r\nContent-Length: 20\r\n\r\n",
    b"GET /id HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    b"x: y\r\n",
];

#[derive(Arbitrary, Debug)]
struct Input {
    version_2: bool,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    /// A segment of a flow, whose numbers are as they should be but for what is added to them.
    Segment {
        flow: u8,
        flags: u8,
        seq: i8,
        ack: i8,
        window: u16,
        payload: Payload,
        options: Vec<u8>,
    },
    /// The beginning of a connection, up to its third segment.
    Open {
        flow: u8,
    },
    /// One byte of the last frame is another.
    Again {
        at: u8,
        xor: u8,
    },
    /// A packet of another protocol.
    Packet {
        protocol: u8,
        data: Vec<u8>,
    },
    Arp {
        operation: u8,
        sender: [u8; 4],
    },
    Frame(Vec<u8>),
    /// Milliseconds.
    Wait(u16),
    /// The guest takes so many frames.
    Take(u8),
}

#[derive(Arbitrary, Debug)]
enum Payload {
    None,
    Request(u8),
    Many { request: u8, count: u8 },
    Bytes(Vec<u8>),
    Long(u16),
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        let request = |number: u8| REQUESTS[usize::from(number) % REQUESTS.len()];
        match self {
            Self::None => Vec::new(),
            Self::Request(number) => request(*number).to_vec(),
            Self::Many { request: number, count } => request(*number).repeat(usize::from(*count)),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Long(len) => vec![b'x'; usize::from(*len)],
        }
    }
}

/// One of the guest's connections.
#[derive(Clone, Copy, Default)]
struct Flow {
    /// The next number of its own.
    seq: u32,
    /// What it has got so far.
    ack: u32,
}

struct Guest {
    service: FrameHarness,
    flows: [Flow; FLOWS],
    last: Vec<u8>,
}

impl Guest {
    fn send(&mut self, frame: Vec<u8>) {
        self.service.send(&frame);
        self.last = frame;
        assert!(self.service.open_connections() <= 31);
    }

    fn segment(&mut self, number: usize, flags: u8, window: u16, payload: &[u8], options: &[u8]) {
        let flow = &mut self.flows[number];
        let options = &options[..options.len().min(40) / 4 * 4];
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&(1000 + number as u16).to_be_bytes());
        tcp.extend_from_slice(&80_u16.to_be_bytes());
        tcp.extend_from_slice(&flow.seq.to_be_bytes());
        tcp.extend_from_slice(&flow.ack.to_be_bytes());
        tcp.push((((20 + options.len()) / 4) << 4) as u8);
        tcp.push(flags);
        tcp.extend_from_slice(&window.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        tcp.extend_from_slice(options);
        tcp.extend_from_slice(payload);
        let occupied = payload.len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        flow.seq = flow.seq.wrapping_add(occupied);
        self.send(packet(6, &tcp));
    }

    /// Takes `count` frames, and notes what they bring.
    fn take(&mut self, count: usize) -> Vec<(usize, Vec<u8>)> {
        let mut got = Vec::new();
        for _ in 0..count {
            let Some(frame) = self.service.receive() else { break };
            assert!((42..=1514).contains(&frame.len()), "{} bytes", frame.len());
            if frame[12..14] != [8, 0] || frame[23] != 6 {
                continue;
            }
            let tcp = &frame[34..];
            let number = usize::from(u16::from_be_bytes([tcp[2], tcp[3]])).wrapping_sub(1000);
            let Some(flow) = self.flows.get_mut(number) else { continue };
            let header = usize::from(tcp[12] >> 4) * 4;
            let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            let payload = tcp[header..].to_vec();
            let occupied =
                payload.len() as u32 + u32::from(tcp[13] & SYN != 0) + u32::from(tcp[13] & FIN != 0);
            flow.ack = seq.wrapping_add(occupied);
            got.push((number, payload));
        }
        got
    }

    fn open(&mut self, number: usize) {
        self.flows[number].ack = 0;
        self.segment(number, SYN, 60_000, &[], &[2, 4, 5, 180]);
        self.take(200);
        self.segment(number, ACK, 60_000, &[], &[]);
    }
}

/// A frame with an IPv4 packet to the service, without checksums.
fn packet(protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![6, 1, 0x23, 0x45, 0x67, 1, 2, 0, 0, 0, 0, 7, 8, 0];
    let len = (20 + data.len()).min(65_535) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 7, 169, 254, 169, 254]);
    frame.extend_from_slice(&data[..usize::from(len) - 20]);
    frame
}

fuzz_target!(|input: Input| {
    let version = if input.version_2 { MmdsVersion::V2 } else { MmdsVersion::V1 };
    let document = serde_json::json!({"id": "i-1", "long": "x".repeat(30_000)});
    let mut guest = Guest {
        service: FrameHarness::new(version, document),
        flows: [Flow::default(); FLOWS],
        last: Vec::new(),
    };
    for action in input.actions.into_iter().take(200) {
        match action {
            Action::Segment { flow, flags, seq, ack, window, payload, options } => {
                let number = usize::from(flow) % FLOWS;
                let flow = &mut guest.flows[number];
                flow.seq = flow.seq.wrapping_add_signed(i32::from(seq));
                flow.ack = flow.ack.wrapping_add_signed(i32::from(ack));
                guest.segment(number, flags, window, &payload.bytes(), &options);
            }
            Action::Open { flow } => guest.open(usize::from(flow) % FLOWS),
            Action::Again { at, xor } => {
                let mut frame = guest.last.clone();
                if let Some(byte) = frame.get_mut(usize::from(at)) {
                    *byte ^= xor;
                }
                guest.send(frame);
            }
            Action::Packet { protocol, data } => guest.send(packet(protocol, &data)),
            Action::Arp { operation, sender } => {
                let mut arp = vec![255; 6];
                arp.extend_from_slice(&[2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
                arp.extend_from_slice(&[2, 0, 0, 0, 0, 7]);
                arp.extend_from_slice(&sender);
                arp.extend_from_slice(&[0, 0, 0, 0, 0, 0, 169, 254, 169, 254]);
                guest.send(arp);
            }
            Action::Frame(frame) => guest.send(frame),
            Action::Wait(time) => {
                let runs = guest.service.pass(u64::from(time) * MILLISECOND);
                // It is never woken up more often than every millisecond, and seldom so often.
                assert!(runs <= usize::from(time) + 1, "{runs} runs in {time} ms");
            }
            Action::Take(count) => drop(guest.take(usize::from(count))),
        }
    }

    // The guest is quiet, and takes what there is.
    for _ in 0..200 {
        let frames = guest.take(1000).len();
        assert!(frames < 1000, "{frames} frames at once");
        if guest.service.next_run().is_none() {
            break;
        }
        guest.service.pass(SECOND);
    }
    assert_eq!(guest.service.open_connections(), 0);
    assert_eq!(guest.service.next_run(), None);

    guest.flows = [Flow::default(); FLOWS];
    guest.open(0);
    guest.segment(0, ACK | PSH, 60_000, REQUESTS[3], &[]);
    let answer: Vec<u8> = guest.take(100).into_iter().flat_map(|(_, payload)| payload).collect();
    let status = if input.version_2 { "401" } else { "200" };
    assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{answer:?}");
    guest.segment(0, RST, 0, &[], &[]);
});
