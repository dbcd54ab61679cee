//! Connections, data and ends, as both sides see them.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::guest::{BUF_ALLOC, CID, Guest, is_closed, read_now};
use crate::virtio::vsock::packet::{Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// Bytes of which no two neighbouring kilobytes are the same.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 13) as u8).collect()
}

#[test]
fn the_guest_reads_its_context_id() {
    let guest = Guest::new();
    assert_eq!(guest.harness.config(0, 8), CID.to_le_bytes());
    assert_eq!(guest.harness.config(4, 8), [0; 8]);
    assert_eq!(guest.harness.config(1 << 40, 4), [0; 4]);
}

#[test]
fn a_guest_connects_to_a_host_program_and_both_talk() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (socket, mut stream) = guest.connect(&listener, 1000, 52);
    guest.say(socket, Op::Rw, b"from the guest");
    assert_eq!(read_now(&stream), b"from the guest");
    stream.write_all(b"from the host").unwrap();
    let packet = guest.one();
    assert_eq!((packet.header.op, packet.data.as_slice()), (Op::Rw, b"from the host".as_slice()));
    assert_eq!(packet.header.fwd_cnt, 14, "it says what was taken");
}

#[test]
fn a_host_program_connects_to_the_guest_and_both_talk() {
    let mut guest = Guest::new();
    let (socket, mut client) = guest.accept(80);
    client.write_all(b"hello").unwrap();
    assert_eq!(guest.one().data, b"hello");
    guest.say(socket, Op::Rw, b"hi");
    assert_eq!(read_now(&client), b"hi");
    let (other, _client) = guest.accept(80);
    assert_ne!(other.host, socket.host);
}

#[test]
fn what_a_host_program_says_behind_its_line_is_for_the_guest() {
    let mut guest = Guest::new();
    let client = guest.client(b"CONNECT 80\nand more\nlines");
    let request = guest.one().header;
    let socket = super::guest::Socket { guest: 80, host: request.src_port, buf_alloc: BUF_ALLOC, fwd_cnt: 0 };
    guest.say(socket, Op::Response, &[]);
    assert_eq!(guest.one().data, b"and more\nlines");
    assert_eq!(read_now(&client), format!("OK {}\n", socket.host).as_bytes());
}

#[test]
fn a_port_where_nobody_listens_is_reset_on_either_side() {
    let mut guest = Guest::new();
    let socket = super::guest::Socket { guest: 1, host: 2, buf_alloc: BUF_ALLOC, fwd_cnt: 0 };
    guest.say(socket, Op::Request, &[]);
    let reset = guest.one().header;
    assert_eq!((reset.op, reset.src_port, reset.dst_port), (Op::Rst, 2, 1));
    assert_eq!(guest.metrics.refused_requests.get(), 1);

    let client = guest.client(b"CONNECT 80\n");
    let request = guest.one().header;
    let socket = super::guest::Socket { guest: 80, host: request.src_port, ..socket };
    guest.say(socket, Op::Rst, &[]);
    assert!(is_closed(&client));
    assert_eq!(guest.ops(), [], "a RST is not answered");
}

#[test]
fn data_of_the_host_fills_many_buffers_up_to_the_credit() {
    let mut guest = Guest::new();
    let (mut socket, mut client) = guest.accept(80);
    let data = pattern(3 * BUF_ALLOC as usize);
    let copy = data.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&copy).unwrap();
        client
    });
    let mut received = Vec::new();
    while received.len() < data.len() {
        let before = received.len();
        while received.len() < (before + BUF_ALLOC as usize) {
            for packet in guest.received() {
                assert!(matches!(packet.header.op, Op::Rw | Op::CreditRequest), "{packet:?}");
                received.extend(packet.data);
            }
        }
        assert_eq!(received.len() - before, BUF_ALLOC as usize, "no more than there was room for");
        socket.fwd_cnt = received.len() as u32;
        guest.say(socket, Op::CreditUpdate, &[]);
    }
    assert!(received == data);
    let _client = writer.join().unwrap();
}

#[test]
fn data_of_the_guest_reaches_the_host_and_credit_comes_back() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (socket, mut stream) = guest.connect(&listener, 1000, 52);
    let data = pattern(1 << 20);
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; 1 << 20];
        stream.read_exact(&mut received).unwrap();
        (received, stream)
    });
    let (mut sent, mut forwarded, mut updates) = (0, 0, 0);
    while sent < data.len() {
        let part = (data.len() - sent).min(64 << 10).min((256 << 10) - (sent - forwarded));
        if part > 0 {
            guest.say(socket, Op::Rw, &data[sent..sent + part]);
            sent += part;
        }
        for packet in guest.received() {
            assert_eq!(packet.header.op, Op::CreditUpdate);
            forwarded = packet.header.fwd_cnt as usize;
            updates += 1;
        }
    }
    while !reader.is_finished() {
        guest.run();
    }
    assert!(reader.join().unwrap().0 == data);
    assert!(updates <= 8, "{updates} updates for 1 MiB and a window of 256 KiB");
    assert_eq!(guest.metrics.tx_bytes.get(), 1 << 20);
}

#[test]
fn a_host_program_that_shuts_its_side_still_hears_the_guest() {
    let mut guest = Guest::new();
    let (socket, mut client) = guest.accept(80);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let received = guest.received();
    assert_eq!(received[0].data, b"question");
    assert_eq!((received[1].header.op, received[1].header.flags), (Op::Shutdown, SHUTDOWN_SEND));
    assert_eq!(received.len(), 2);
    guest.say(socket, Op::Rw, b"answer");
    guest.send(socket.shutdown(SHUTDOWN_BOTH), &[]);
    assert_eq!(guest.one().header.op, Op::Rst, "closed");
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn a_guest_that_shuts_its_side_still_hears_the_host() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (socket, mut stream) = guest.connect(&listener, 1000, 52);
    guest.say(socket, Op::Rw, b"question");
    guest.send(socket.shutdown(SHUTDOWN_SEND), &[]);
    let mut question = String::new();
    stream.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    stream.write_all(b"answer").unwrap();
    assert_eq!(guest.one().data, b"answer");
    drop(stream);
    let shutdown = guest.one().header;
    assert_eq!((shutdown.op, shutdown.flags), (Op::Shutdown, SHUTDOWN_BOTH));
    guest.say(socket, Op::Rst, &[]);
    assert_eq!(guest.ops(), []);
}

#[test]
fn a_guest_that_receives_no_more_makes_the_host_program_fail_to_write() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (socket, mut stream) = guest.connect(&listener, 1000, 52);
    guest.send(socket.shutdown(SHUTDOWN_RECEIVE), &[]);
    assert!(stream.write_all(b"?").is_err());
    guest.say(socket, Op::Rw, b"but it sends");
    assert_eq!(read_now(&stream), b"but it sends");
}

#[test]
fn packets_that_come_together_count_in_their_order() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (first, mut one) = guest.connect(&listener, 1000, 52);
    let (second, mut two) = guest.connect(&listener, 1001, 52);
    let part = |socket: &super::guest::Socket| socket.header(Op::Rw, 4);
    guest.send_together(&[
        (part(&first), b"all "),
        (part(&first), b"of i"),
        (part(&second), b"and "),
        (first.shutdown(SHUTDOWN_BOTH), b""),
        (part(&second), b"this"),
        (second.shutdown(SHUTDOWN_SEND), b""),
    ]);
    let (mut heard, mut also) = (String::new(), String::new());
    one.read_to_string(&mut heard).unwrap();
    two.read_to_string(&mut also).unwrap();
    assert_eq!((heard.as_str(), also.as_str()), ("all of i", "and this"));
    assert_eq!(guest.ops(), [Op::Rst]);
}
