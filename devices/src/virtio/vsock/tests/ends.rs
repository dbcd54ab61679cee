//! How connections end and what happens to those that stand still.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use super::guest::{Guest, Socket, is_closed, read_now};
use crate::virtio::vsock::packet::{HEADER_LEN, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE};

const KIB: usize = 1 << 10;
const WINDOW: usize = 256 * KIB;

/// Sends until the guest has no credit left, in packets of 16 KiB, and says how much that was.
fn fill(guest: &mut Guest, socket: Socket) -> usize {
    let data = vec![0x5a; 16 * KIB];
    let (mut sent, mut forwarded) = (0, 0);
    while sent - forwarded + data.len() <= WINDOW {
        guest.say(socket, Op::Rw, &data);
        sent += data.len();
        for packet in guest.received() {
            assert_eq!(packet.header.op, Op::CreditUpdate);
            forwarded = packet.header.fwd_cnt as usize;
        }
    }
    sent
}

#[test]
fn a_host_program_that_never_reads_stalls_its_own_connection_only() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (stalled, _silent) = guest.connect(&listener, 1, 52);
    let sent = fill(&mut guest, stalled);
    assert!(sent >= WINDOW, "{sent}");
    let (socket, mut stream) = guest.connect(&listener, 2, 52);
    guest.say(socket, Op::Rw, b"past the other");
    assert_eq!(read_now(&stream), b"past the other");
    stream.write_all(b"and back").unwrap();
    assert_eq!(guest.one().data, b"and back");
}

#[test]
fn a_guest_that_never_reads_stalls_its_own_connection_only() {
    let mut guest = Guest::new();
    let (stalled, mut busy) = guest.accept(80);
    busy.set_nonblocking(true).unwrap();
    while busy.write(&vec![0; 64 * KIB]).is_ok() {
        guest.run();
    }
    let got: usize = guest.received().iter().map(|packet| packet.data.len()).sum();
    assert_eq!(got, stalled.buf_alloc as usize, "as much as it has room for");
    let (_, mut client) = guest.accept(80);
    client.write_all(b"past the other").unwrap();
    assert_eq!(guest.one().data, b"past the other");
    // And nobody asks the processor for it all the time.
    let wakeups = (0..20).filter(|_| guest.harness.run_once(Duration::from_millis(5))).count();
    assert!(wakeups <= 2, "{wakeups} wake-ups for nothing");
}

/// How many bytes come from `stream` until it ends, while the device works.
fn read_to_end(mut stream: UnixStream, guest: &mut Guest) -> usize {
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    while !reader.is_finished() {
        guest.run();
    }
    reader.join().unwrap()
}

#[test]
fn what_a_guest_sent_before_it_closed_reaches_a_slow_reader() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (socket, stream) = guest.connect(&listener, 1, 52);
    let sent = fill(&mut guest, socket);
    guest.send(socket.shutdown(SHUTDOWN_BOTH), &[]);
    assert_eq!(guest.ops(), [Op::Rst], "the guest does not wait for the reader");
    // Its ports are free for another.
    let (again, other) = guest.connect(&listener, 1, 52);
    guest.say(again, Op::Rw, b"new");
    assert_eq!(read_now(&other), b"new");
    assert_eq!(read_to_end(stream, &mut guest), sent);
}

#[test]
fn what_a_guest_sends_behind_its_end_is_neither_kept_nor_passed_on() {
    let mut guest = Guest::new();
    let listener = guest.listen(52);
    let (socket, stream) = guest.connect(&listener, 1, 52);
    let sent = fill(&mut guest, socket);
    // The device hears of all of it before it can tell the guest that the connection is gone.
    let data = vec![0xa5; 32 * KIB];
    let late = (socket.header(Op::Rw, data.len() as u32), &data[..]);
    guest.send_together(&[(socket.shutdown(SHUTDOWN_BOTH), &[]), late, late, late]);
    assert_eq!(guest.ops(), [Op::Rst]);
    assert_eq!(read_to_end(stream, &mut guest), sent, "no credit bounds what comes behind the end");
}

#[test]
fn what_a_host_program_sent_before_it_closed_reaches_a_guest_without_room() {
    let mut guest = Guest::new();
    let (mut socket, mut client) = guest.accept(80);
    client.write_all(&vec![7; 100 * KIB]).unwrap();
    drop(client);
    let (mut got, mut shut) = (0, 0);
    while shut != SHUTDOWN_BOTH {
        for packet in guest.received() {
            got += packet.data.len();
            shut |= packet.header.flags;
        }
        socket.fwd_cnt = got as u32;
        guest.say(socket, Op::CreditUpdate, &[]);
    }
    assert_eq!(got, 100 * KIB);
    guest.say(socket, Op::Rst, &[]);
    assert_eq!(guest.ops(), []);
}

#[test]
fn nothing_is_lost_while_the_guest_gives_no_buffers() {
    let mut guest = Guest::without_buffers();
    let listener = guest.listen(52);
    let sockets: Vec<_> =
        (0..50).map(|port| Socket { guest: port, host: 52, buf_alloc: 4096, fwd_cnt: 0 }).collect();
    for socket in &sockets {
        guest.say(*socket, Op::Request, &[]);
    }
    let nobody = Socket { guest: 99, host: 53, buf_alloc: 0, fwd_cnt: 0 };
    guest.say(nobody, Op::Request, &[]);
    let streams: Vec<UnixStream> = (0..50).map(|_| listener.accept().unwrap().0).collect();
    for mut stream in &streams {
        stream.write_all(b"data").unwrap();
    }
    guest.run();
    guest.add_buffers(32, 1024);
    let received = guest.received();
    let count = |op| received.iter().filter(|packet| packet.header.op == op).count();
    assert_eq!((count(Op::Response), count(Op::Rw), count(Op::Rst)), (50, 50, 1));
    for socket in sockets {
        let ops: Vec<_> = received
            .iter()
            .filter(|packet| packet.header.dst_port == socket.guest)
            .map(|packet| packet.header.op)
            .collect();
        assert_eq!(ops, [Op::Response, Op::Rw]);
    }
}

#[test]
fn resets_wait_for_buffers_and_the_guest_s_packets_wait_for_resets() {
    let mut guest = Guest::without_buffers();
    let nobody = |port| Socket { guest: port, host: 53, buf_alloc: 0, fwd_cnt: 0 };
    let bytes = nobody(0).header(Op::Rw, 0).to_bytes();
    let address = guest.harness.place(&bytes);
    for _ in 0..4 {
        for _ in 0..100 {
            let packet = crate::virtio::queue_harness::Buffer::readable(address, HEADER_LEN as u32);
            guest.harness.add_chain(1, &[packet]);
        }
        guest.harness.kick(1);
    }
    let taken = guest.harness.take_used(1).len();
    assert_eq!(taken, 256, "no more answers are kept");
    guest.add_buffers(64, 128);
    let resets = guest.received();
    assert_eq!(resets.len(), 400, "and none is lost");
    assert!(resets.iter().all(|packet| packet.header.op == Op::Rst));
    assert_eq!(guest.harness.take_used(1).len(), 400 - 256);
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::without_buffers();
    guest.add_buffers(2, 1 << 10);
    let listener = guest.listen(52);
    let pairs: Vec<_> = (1..=4).map(|port| guest.connect(&listener, port, 52)).collect();
    for (_, stream) in &pairs {
        (&*stream).write_all(&vec![1; 16 * KIB]).unwrap();
    }
    let turns: Vec<u32> = guest.received().iter().map(|packet| packet.header.dst_port).collect();
    for port in 1..=4 {
        let first = turns.iter().position(|turn| *turn == port).unwrap();
        assert!(first < 16, "{port} waited for {first} packets of others: {turns:?}");
    }
}

#[test]
fn a_guest_that_does_not_answer_is_not_waited_for() {
    let mut guest = Guest::new();
    let mut client = guest.client(b"CONNECT 80\n");
    let request = guest.one().header;
    let deadline = std::time::Instant::now() + Duration::from_secs(8);
    let mut reset = None;
    while reset.is_none() && std::time::Instant::now() < deadline {
        guest.harness.run_once(Duration::from_millis(100));
        reset = guest.received().pop();
    }
    let reset = reset.expect("a RST within 8 s").header;
    assert_eq!((reset.op, reset.src_port), (Op::Rst, request.src_port));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_guest_that_does_not_acknowledge_the_end_is_reset() {
    let mut guest = Guest::new();
    let (_, client) = guest.accept(80);
    drop(client);
    assert_eq!(guest.ops(), [Op::Shutdown]);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let mut ops = Vec::new();
    while ops.is_empty() && std::time::Instant::now() < deadline {
        guest.harness.run_once(Duration::from_millis(100));
        ops = guest.ops();
    }
    assert_eq!(ops, [Op::Rst]);
}

#[test]
fn a_host_program_that_reads_no_more_is_said_to_the_guest() {
    let mut guest = Guest::new();
    let (socket, client) = guest.accept(80);
    client.shutdown(std::net::Shutdown::Read).unwrap();
    guest.say(socket, Op::Rw, b"nobody reads this");
    let shutdown = guest.one().header;
    assert_eq!((shutdown.op, shutdown.flags), (Op::Shutdown, SHUTDOWN_RECEIVE));
    (&client).write_all(b"but it writes").unwrap();
    assert_eq!(guest.one().data, b"but it writes");
}

#[test]
fn a_reset_of_the_device_ends_connections_and_the_next_driver_begins_anew() {
    let mut guest = Guest::new();
    let (_, client) = guest.accept(80);
    guest.harness.start(0, 256);
    assert!(is_closed(&client));
    assert!(!guest.harness.run_once(Duration::from_millis(5)), "nothing left to do");
    guest.add_buffers(8, 4096);
    let (socket, client) = guest.accept(80);
    guest.say(socket, Op::Rw, b"again");
    assert_eq!(read_now(&client), b"again");
}

#[test]
fn buffers_that_were_not_used_are_in_the_ring_when_the_queue_is_given_back() {
    let mut guest = Guest::new();
    let (_, mut client) = guest.accept(80);
    // Fills more than one buffer, so that the next read is offered many.
    client.write_all(&[1; 10_000]).unwrap();
    guest.run();
    client.write_all(&[2; 100]).unwrap();
    guest.harness.run_once(Duration::from_millis(50));
    let used = guest.harness.take_used(0).len();
    assert_eq!(used, 1);
}
