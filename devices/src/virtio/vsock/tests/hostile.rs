//! Packets that no good driver sends: the device resets, counts and goes on.

use std::io::Write;

use super::guest::{BUF_ALLOC, Guest, Packet, Socket, is_closed, read_now};
use crate::virtio::device::DeviceEvent;
use crate::virtio::queue_harness::{Buffer, MEMORY_SIZE, REGION_BOUNDARY};
use crate::virtio::vsock::MAX_CONNECTIONS;
use crate::virtio::vsock::packet::{HEADER_LEN, Header, Op, SHUTDOWN_SEND};

const TX: u32 = 1;

/// A connection, from port 1 of the guest to port 52, and the host's end.
fn connected(guest: &mut Guest) -> (Socket, std::os::unix::net::UnixStream) {
    let listener = guest.listen(52);
    guest.connect(&listener, 1, 52)
}

/// The device still serves others.
#[track_caller]
fn assert_alive(guest: &mut Guest) {
    assert!(!guest.harness.needs_reset());
    let (socket, mut client) = guest.accept(9999);
    guest.say(socket, Op::Rw, b"alive");
    assert_eq!(read_now(&client), b"alive");
    client.write_all(b"and kicking").unwrap();
    assert_eq!(guest.one().data, b"and kicking");
}

#[test]
fn a_packet_that_breaks_the_protocol_resets_its_connection() {
    type Change = fn(Header) -> Header;
    let cases: [(&str, Change); 9] = [
        ("an operation that does not exist", |header| Header { op: Op::Invalid(8), ..header }),
        ("operation 0", |header| Header { op: Op::Invalid(0), ..header }),
        ("operation 65535", |header| Header { op: Op::Invalid(0xffff), ..header }),
        ("a request for what there is", |header| Header { op: Op::Request, ..header }),
        ("a response to nothing", |header| Header { op: Op::Response, ..header }),
        ("more bytes than the packet has", |header| Header { op: Op::Rw, len: 1, ..header }),
        ("far more bytes", |header| Header { op: Op::Rw, len: u32::MAX, ..header }),
        ("bytes taken that were never sent", |header| Header { op: Op::CreditUpdate, fwd_cnt: 1, ..header }),
        ("a count that runs backwards", |header| Header {
            op: Op::CreditUpdate,
            fwd_cnt: u32::MAX,
            ..header
        }),
    ];
    for (case, change) in cases {
        let mut guest = Guest::new();
        let (socket, stream) = connected(&mut guest);
        guest.send(change(socket.header(Op::Rw, 0)), &[]);
        assert_eq!(guest.ops(), [Op::Rst], "{case}");
        assert!(is_closed(&stream), "{case}");
        let metrics = &guest.metrics;
        assert_eq!(metrics.invalid_packets.get() + metrics.credit_violations.get(), 1, "{case}");
        assert_alive(&mut guest);
    }
}

#[test]
fn more_data_than_there_is_credit_for_resets_the_connection() {
    let mut guest = Guest::new();
    let (socket, stream) = connected(&mut guest);
    for _ in 0..32 {
        guest.say(socket, Op::Rw, &vec![1; 64 << 10]);
    }
    assert!(guest.ops().contains(&Op::Rst));
    assert_eq!(guest.metrics.credit_violations.get(), 1);
    assert!(!read_now(&stream).is_empty());
    assert_alive(&mut guest);
}

#[test]
fn data_after_the_guest_said_that_none_comes_resets_the_connection() {
    let mut guest = Guest::new();
    let (socket, _stream) = connected(&mut guest);
    guest.send(socket.shutdown(SHUTDOWN_SEND), &[]);
    guest.say(socket, Op::Rw, b"x");
    assert_eq!(guest.ops(), [Op::Rst]);
    assert_alive(&mut guest);
}

#[test]
fn a_buffer_that_shrinks_below_what_is_under_way_leaves_no_credit_and_does_no_harm() {
    let mut guest = Guest::new();
    let (mut socket, mut stream) = connected(&mut guest);
    stream.write_all(&[1; 1000]).unwrap();
    assert_eq!(guest.one().data.len(), 1000);
    socket.buf_alloc = 10;
    guest.say(socket, Op::CreditUpdate, &[]);
    stream.write_all(&[2; 1000]).unwrap();
    assert_eq!(guest.ops(), []);
    (socket.fwd_cnt, socket.buf_alloc) = (1000, 600);
    guest.say(socket, Op::CreditUpdate, &[]);
    assert_eq!(guest.one().data.len(), 600);
}

#[test]
fn packets_for_connections_that_are_not_there_are_reset_but_resets_are_not() {
    let mut guest = Guest::new();
    let nobody = Socket { guest: 5, host: 6, buf_alloc: 0, fwd_cnt: 0 };
    for op in [Op::Response, Op::Rw, Op::Shutdown, Op::CreditUpdate, Op::CreditRequest, Op::Invalid(77)] {
        guest.say(nobody, op, &[]);
        let Packet { header, .. } = guest.one();
        assert_eq!((header.op, header.src_port, header.dst_port), (Op::Rst, 6, 5), "{op:?}");
    }
    guest.say(nobody, Op::Rst, &[]);
    assert_eq!(guest.ops(), []);
    assert_alive(&mut guest);
}

#[test]
fn addresses_and_types_that_nobody_has_are_refused() {
    let mut guest = Guest::new();
    let (socket, stream) = connected(&mut guest);
    let header = socket.header(Op::Rw, 0);
    // From somebody else: whom should an answer go to?
    guest.send(Header { src_cid: 43, ..header }, &[]);
    assert_eq!(guest.ops(), []);
    // To somebody else, and of another type: answered in kind.
    guest.send(Header { dst_cid: 9, op: Op::Request, ..header }, &[]);
    let reset = guest.one().header;
    assert_eq!((reset.op, reset.src_cid), (Op::Rst, 9));
    guest.send(Header { socket_type: 2, ..header }, &[]);
    let reset = guest.one().header;
    assert_eq!((reset.op, reset.socket_type), (Op::Rst, 2));
    assert!(!is_closed(&stream));
}

#[test]
fn a_header_split_over_descriptors_and_regions_is_read() {
    let mut guest = Guest::new();
    let (socket, stream) = connected(&mut guest);
    let header = socket.header(Op::Rw, 6).to_bytes();
    // The last part lies across the boundary of two regions of memory.
    let at = REGION_BOUNDARY - 7;
    let bytes = [&header[30..], b"across"].concat();
    vm_memory::Bytes::write_slice(guest.harness.memory(), &bytes, vm_memory::GuestAddress(at)).unwrap();
    let (first, second) = (guest.harness.place(&header[..1]), guest.harness.place(&header[1..30]));
    let chain = [Buffer::readable(first, 1), Buffer::readable(second, 29), Buffer::readable(at, 20)];
    guest.harness.add_chain(TX, &chain);
    guest.harness.kick(TX);
    assert_eq!(read_now(&stream), b"across");
    guest.harness.add_indirect_chain(TX, &chain);
    guest.harness.kick(TX);
    assert_eq!(read_now(&stream), b"across");
}

#[test]
fn a_receive_buffer_of_many_pieces_is_filled() {
    let mut guest = Guest::without_buffers();
    let at = guest.harness.allocate(200, 0xee);
    let chain = [Buffer::writable(at, 10), Buffer::writable(at + 10, 40), Buffer::writable(at + 100, 100)];
    guest.harness.add_chain(0, &chain);
    guest.harness.kick(0);
    let socket = Socket { guest: 1, host: 2, buf_alloc: BUF_ALLOC, fwd_cnt: 0 };
    guest.say(socket, Op::Request, &[]);
    let used = guest.harness.take_used(0);
    assert_eq!(used[0].len, HEADER_LEN as u32);
    let header = Header::from_bytes(guest.harness.fetch(at, HEADER_LEN)[..].try_into().unwrap());
    assert_eq!((header.op, header.dst_port), (Op::Rst, 1));
    assert_eq!(guest.harness.fetch(at + HEADER_LEN as u64, 6), [0xee; 6]);
}

#[test]
fn malformed_chains_are_given_back_and_counted() {
    let mut guest = Guest::new();
    let short = guest.harness.allocate(HEADER_LEN as u32 - 1, 0);
    let outside = Buffer::readable(MEMORY_SIZE, 100);
    let chains: [&[Buffer]; 3] =
        [&[Buffer::readable(short, HEADER_LEN as u32 - 1)], &[outside], &[Buffer::writable(short, 100)]];
    for chain in chains {
        guest.harness.add_chain(TX, chain);
        guest.harness.kick(TX);
        assert_eq!(guest.harness.take_used(TX).len(), 1);
    }
    assert_eq!(guest.metrics.invalid_packets.get(), 3);
    assert_alive(&mut guest);
}

#[test]
fn data_outside_of_memory_resets_its_connection() {
    let mut guest = Guest::new();
    let (socket, stream) = connected(&mut guest);
    let header = guest.harness.place(&socket.header(Op::Rw, 100).to_bytes());
    let data = Buffer::readable(MEMORY_SIZE - 50, 100);
    guest.harness.add_chain(TX, &[Buffer::readable(header, HEADER_LEN as u32), data]);
    guest.harness.kick(TX);
    assert_eq!(guest.ops(), [Op::Rst]);
    assert!(is_closed(&stream));
    assert_alive(&mut guest);
}

#[test]
fn receive_buffers_that_hold_no_packet_are_given_back_empty() {
    let mut guest = Guest::without_buffers();
    let at = guest.harness.allocate(HEADER_LEN as u32, 0);
    for buffer in [
        Buffer::writable(at, 10),
        Buffer::writable(at, HEADER_LEN as u32),
        Buffer::writable(MEMORY_SIZE - 8, 100),
        Buffer::readable(at, 44),
    ] {
        guest.harness.add_chain(0, &[buffer]);
    }
    guest.harness.kick(0);
    guest.say(Socket { guest: 1, host: 2, buf_alloc: 0, fwd_cnt: 0 }, Op::Request, &[]);
    let lens: Vec<_> = guest.harness.take_used(0).iter().map(|used| used.len).collect();
    assert_eq!(lens, [0; 4]);
    guest.add_buffers(1, 100);
    assert_eq!(guest.ops(), [Op::Rst], "the next buffer that is of use is used");
}

#[test]
fn a_driver_that_goes_on_adding_useless_receive_buffers_is_served_in_shares() {
    let mut guest = Guest::without_buffers();
    for guest_port in 0..200 {
        guest.say(Socket { guest: guest_port, host: 6, buf_alloc: 0, fwd_cnt: 0 }, Op::Response, &[]);
    }
    let good = guest.harness.allocate(100, 0);
    // Long ones, which take their time to look at.
    let useless = guest.harness.add_indirect_chain(0, &vec![Buffer::readable(good, 1); 400]);
    for _ in 0..254 {
        guest.harness.make_available(0, useless);
    }
    guest.harness.add_chain(0, &[Buffer::writable(good, 100)]);
    let refill = guest.harness.refill(0);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other_vcpu = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            refill();
        }
    });
    std::thread::sleep(std::time::Duration::from_millis(10));
    guest.harness.core().process(DeviceEvent::Queue(0));
    drop(stop);
    other_vcpu.join().unwrap();
    assert!(!guest.harness.needs_reset());
    let rejected = guest.metrics.invalid_packets.get() - 200;
    assert!((1..1024).contains(&rejected), "{rejected} buffers in one call");
}

#[test]
fn connections_beyond_the_limit_are_reset_and_their_places_come_back() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    // Descriptors are short before connections are, unless the limit of this process is high.
    let mut streams = Vec::new();
    let mut refused = 0;
    for port in 0..MAX_CONNECTIONS as u32 + 10 {
        let socket = Socket { guest: port, host: 52, buf_alloc: 0, fwd_cnt: 0 };
        guest.say(socket, Op::Request, &[]);
        match guest.one().header.op {
            Op::Response => streams.push((socket, listener.accept().map(|(stream, _)| stream))),
            Op::Rst => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused >= 10 && streams.len() <= MAX_CONNECTIONS, "{refused} refused");
    assert_eq!(streams.len() + refused, MAX_CONNECTIONS + 10);
    for (socket, _) in streams.drain(..) {
        guest.say(socket, Op::Rst, &[]);
    }
    assert_eq!(guest.ops(), []);
    assert_alive(&mut guest);
}

#[test]
fn a_flood_of_requests_and_resets_without_buffers_takes_no_memory() {
    let mut guest = Guest::without_buffers();
    let listener = guest.listen(52);
    listener.set_nonblocking(true).unwrap();
    for round in 0..3000_u32 {
        let socket = Socket { guest: round, host: 52, buf_alloc: 0, fwd_cnt: 0 };
        guest.say(socket, Op::Request, &[]);
        guest.say(socket, Op::Rst, &[]);
        let _ = listener.accept();
    }
    guest.add_buffers(4, 128);
    assert_eq!(guest.ops(), [], "nothing was left of them");
    assert_alive(&mut guest);
}
