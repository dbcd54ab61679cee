//! Guests that do what they should not, frame by frame, in a time that the test makes up.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::wire::TcpControl;

use super::guest::{GUEST_ADDRESS, Guest, Segment, parse};
use super::*;

const SECOND: u64 = 1_000_000_000;
const REQUEST: &[u8] = b"GET /id HTTP/1.1\r\nHost: x\r\n\r\n";

/// The service and a guest.
struct Pair {
    service: FrameHarness,
    guest: Guest,
}

impl Pair {
    fn new() -> Self {
        let document = json!({"id": "i-1", "long": "x".repeat(40_000)});
        Self { service: FrameHarness::new(MmdsVersion::V1, document), guest: Guest::new() }
    }

    /// Carries frames both ways until there are none.
    fn settle(&mut self) {
        for _ in 0..2000 {
            let mut moved = false;
            for frame in self.guest.poll(self.service.now()) {
                assert!(self.service.send(&frame));
                moved = true;
            }
            while let Some(frame) = self.service.receive() {
                self.guest.give(frame);
                moved = true;
            }
            if !moved {
                return;
            }
        }
        panic!("frames go to and fro without end");
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.service.receive()).collect()
    }

    /// A new connection is served.
    fn is_well(&mut self) -> bool {
        let handle = self.ask(REQUEST);
        let answer = self.guest.receive(handle);
        self.guest.close(handle);
        self.settle();
        answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"\r\n\r\ni-1")
    }

    fn ask(&mut self, request: &[u8]) -> SocketHandle {
        let handle = self.guest.connect();
        self.settle();
        self.guest.send(handle, request);
        self.settle();
        handle
    }
}

#[test]
fn a_connection_is_served_and_leaves_nothing_behind() {
    let mut pair = Pair::new();
    assert!(pair.is_well());
    assert_eq!((pair.service.open_connections(), pair.service.next_run()), (0, None));
    assert_eq!(pair.service.metrics().connections_created.get(), 1);
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let mut pair = Pair::new();
    let mut requests = Vec::new();
    for number in 0..100 {
        let path = if number % 10 == 9 { "id" } else { "none" };
        requests.extend_from_slice(format!("GET /{path} HTTP/1.1\r\n\r\n").as_bytes());
    }
    let handle = pair.ask(&requests);
    while pair.service.pass(SECOND / 10) > 0 {
        pair.settle();
    }
    let answers = String::from_utf8(pair.guest.receive(handle)).unwrap();
    let statuses: Vec<&str> =
        answers.lines().filter_map(|line| Some(line.split_once("HTTP/1.1 ")?.1.split_at(3).0)).collect();
    let expected: Vec<&str> = (0..100).map(|number| if number % 10 == 9 { "200" } else { "404" }).collect();
    assert_eq!(statuses, expected);
}

#[test]
fn a_long_answer_comes_as_fast_as_the_guest_takes_it() {
    let mut pair = Pair::new();
    let handle = pair.ask(b"GET /long HTTP/1.1\r\nConnection: close\r\n\r\n");
    let answer = pair.guest.receive(handle);
    assert!(answer.ends_with("x".repeat(40_000).as_bytes()), "{} bytes", answer.len());
    assert_eq!(pair.guest.state(handle), State::CloseWait, "closed by the service");
}

#[test]
fn a_flood_of_syns_takes_no_more_than_thirty_connections() {
    let mut pair = Pair::new();
    for number in 0..5000_u16 {
        let [high, low] = number.to_be_bytes();
        let syn = Segment::syn([10, high, low, 1], 1024 + number);
        pair.service.send(&syn.frame());
        assert!(pair.service.open_connections() <= 31, "{} connections", pair.service.open_connections());
        pair.drain();
    }
    assert!(pair.is_well(), "there is room for one more at any time");
    // What was half open goes by itself, and so does the timer.
    let runs = pair.service.pass(120 * SECOND);
    assert!(runs < 500, "{runs}");
    assert_eq!((pair.service.open_connections(), pair.service.next_run()), (0, None));
    assert!(pair.is_well());
}

#[test]
fn a_guest_that_takes_no_frames_is_sent_no_more_than_a_few() {
    let mut pair = Pair::new();
    for number in 0..1000 {
        pair.service.send(&Segment::syn(GUEST_ADDRESS, 1000 + number).frame());
    }
    let runs = pair.service.pass(60 * SECOND);
    assert!(runs <= 61, "{runs} looks at a guest that takes nothing");
    let waiting = pair.drain().len();
    assert!((1..=200).contains(&waiting), "{waiting} frames");
    assert!(pair.service.metrics().rx_dropped.get() > 0);
    pair.service.pass(60 * SECOND);
    pair.drain();
    assert!(pair.is_well());
}

#[test]
fn a_request_without_end_is_refused_when_it_is_too_long() {
    let mut pair = Pair::new();
    let handle = pair.guest.connect();
    pair.settle();
    pair.guest.send(handle, b"GET / HTTP/1.1\r\nX: ");
    for _ in 0..20 {
        pair.guest.send(handle, &[b'x'; 1000]);
        pair.settle();
    }
    let answer = pair.guest.receive(handle);
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    pair.service.pass(60 * SECOND);
    pair.settle();
    assert_eq!(pair.service.open_connections(), 0);
}

#[test]
fn a_request_that_comes_slowly_does_not_wait_for_ever() {
    let mut pair = Pair::new();
    let handle = pair.guest.connect();
    pair.settle();
    for byte in b"GET /id HTTP/1.1\r\nX-very-slow: 1\r\n" {
        pair.guest.send(handle, &[*byte]);
        pair.settle();
        pair.service.pass(SECOND);
        pair.settle();
        if pair.guest.state(handle) == State::Closed {
            break;
        }
    }
    assert_eq!(pair.guest.state(handle), State::Closed, "reset");
    assert_eq!((pair.service.open_connections(), pair.service.metrics().connections_aborted.get()), (0, 1));
}

#[test]
fn an_answer_that_nobody_reads_does_not_wait_for_ever() {
    let mut pair = Pair::new();
    pair.guest.connect();
    pair.settle();
    // One that acknowledges nothing.
    let syn = Segment::syn(GUEST_ADDRESS, 5000);
    pair.service.send(&syn.frame());
    let (control, seq, ack, _) = parse(&pair.service.receive().unwrap());
    assert_eq!((control, ack), (TcpControl::Syn, Some(1001)));
    let request = Segment {
        control: TcpControl::Psh,
        seq: 1001,
        ack: Some(seq.wrapping_add(1)),
        payload: b"GET /long HTTP/1.1\r\n\r\n",
        ..syn
    };
    pair.service.send(&request.frame());
    let mut frames = pair.drain().len();
    let mut runs = 0;
    for _ in 0..120 {
        runs += pair.service.pass(SECOND);
        frames += pair.drain().len();
    }
    assert_eq!((pair.service.open_connections(), pair.service.next_run()), (0, None));
    assert!(runs < 200 && frames < 100, "{runs} runs, {frames} frames");
}

#[test]
fn a_segment_longer_than_the_link_allows_is_taken_as_a_driver_with_offloads_sends_it() {
    let mut pair = Pair::new();
    let syn = Segment::syn(GUEST_ADDRESS, 5000);
    pair.service.send(&syn.frame());
    let (_, seq, _, _) = parse(&pair.service.receive().unwrap());
    let request = format!("GET /id HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(7000));
    let segment = Segment {
        control: TcpControl::Psh,
        seq: 1001,
        ack: Some(seq.wrapping_add(1)),
        payload: request.as_bytes(),
        ..syn
    };
    pair.service.send(&segment.frame());
    let answers = pair.drain();
    let (_, _, ack, _) = parse(&answers[0]);
    assert_eq!(ack, Some(1001 + i32::try_from(request.len()).unwrap()));
    let payload: Vec<u8> = answers.iter().flat_map(|frame| parse(frame).3).collect();
    assert!(payload.ends_with(b"\r\n\r\ni-1"), "{}", String::from_utf8_lossy(&payload));
}

#[test]
fn senders_that_nobody_can_answer_get_no_answer() {
    let mut pair = Pair::new();
    let own = DEFAULT_ADDRESS.octets();
    for address in [[0, 0, 0, 0], [0, 1, 2, 3], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4], own] {
        pair.service.send(&Segment::syn(address, 5000).frame());
        assert_eq!(pair.drain().len(), 0, "{address:?}");
    }
    let mut frame = Segment::syn(GUEST_ADDRESS, 5000).frame();
    frame[6..12].fill(0xff);
    pair.service.send(&frame);
    assert_eq!((pair.drain().len(), pair.service.open_connections()), (0, 0));
    assert_eq!(pair.service.metrics().rx_dropped.get(), 7);
    // Anybody else gets one, wherever he says he is.
    for address in [[127, 0, 0, 1], [169, 254, 1, 1], [8, 8, 8, 8]] {
        pair.service.send(&Segment::syn(address, 5000).frame());
        assert_eq!(pair.drain().len(), 1, "{address:?}");
    }
}

#[test]
fn frames_of_which_a_part_is_missing_or_wrong_harm_nothing() {
    let mut pair = Pair::new();
    let syn = Segment::syn(GUEST_ADDRESS, 5000).frame();
    let request = Segment {
        control: TcpControl::Psh,
        ack: Some(1),
        payload: REQUEST,
        ..Segment::syn(GUEST_ADDRESS, 5000)
    };
    for frame in [syn, request.frame()] {
        for len in 0..=frame.len() {
            pair.service.send(&frame[..len]);
            pair.drain();
        }
        for at in 0..frame.len().min(80) {
            for bits in [0x01, 0x80, 0xff] {
                let mut broken = frame.clone();
                broken[at] ^= bits;
                pair.service.send(&broken);
                pair.drain();
            }
        }
    }
    assert!(pair.service.open_connections() <= 31);
    assert!(pair.is_well());
}

#[test]
fn a_closed_port_says_so() {
    let mut pair = Pair::new();
    let mut frame = Segment::syn(GUEST_ADDRESS, 5000).frame();
    frame[14 + 20 + 2..14 + 20 + 4].copy_from_slice(&8080_u16.to_be_bytes());
    pair.service.send(&frame);
    assert_eq!(parse(&pair.service.receive().unwrap()).0, TcpControl::Rst);
}

#[test]
fn a_guest_that_has_nothing_more_to_send_is_still_answered() {
    let mut pair = Pair::new();
    for request in [REQUEST, b"GET /long HTTP/1.1\r\n\r\n", b"GET /id HTT", b""] {
        let handle = pair.guest.connect();
        pair.settle();
        if !request.is_empty() {
            pair.guest.send(handle, request);
        }
        pair.guest.close(handle);
        pair.settle();
        let answer = pair.guest.receive(handle);
        assert_eq!(answer.is_empty(), !request.ends_with(b"\r\n\r\n"), "{}", answer.len());
        // Its last acknowledgement takes its time.
        pair.service.pass(SECOND);
        pair.settle();
        assert_eq!(pair.service.open_connections(), 0);
    }
}
