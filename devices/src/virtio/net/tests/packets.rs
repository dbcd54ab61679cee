//! A backend that keeps packets apart and has virtio's header: a tap.

use super::*;

fn packet(seed: u8, len: usize) -> Vec<u8> {
    [&[0; HEADER][..], &frame(seed, len)].concat()
}

#[test]
fn a_frame_of_the_host_is_put_into_a_buffer_with_its_header() {
    let mut net = tap(0);
    let [address, _] = net.offer(2, 1526)[..] else { panic!() };
    net.harness.kick(RX);
    net.peer.send(&packet(1, 60)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [72]);
    let mut expected = packet(1, 60);
    expected[10] = 1; // num_buffers
    assert_eq!(net.harness.fetch(address, 72), expected);
    assert_eq!(net.harness.fetch(address + 72, 1), [0xee], "no byte more");
    assert_eq!(net.harness.interrupts(), 1);
    assert_eq!((net.metrics.rx_frames.get(), net.metrics.rx_bytes.get()), (1, 60));
}

#[test]
fn what_came_before_the_driver_is_read_when_it_is_there() {
    let mut net = tap(0);
    net.harness.negotiate(crate::virtio::queue_harness::VERSION_1);
    net.settle();
    net.peer.send(&packet(1, 60)).unwrap();
    net.settle();
    net.harness.start(0, 64);
    net.offer(1, 1526);
    net.settle();
    net.harness.kick(RX);
    assert_eq!(net.lens(RX), [72]);
}

#[test]
fn a_long_frame_takes_several_buffers_that_are_seen_at_once() {
    for before in [0, 3] {
        let mut net = tap(MERGEABLE);
        let addresses = net.offer(64, 1500);
        net.harness.kick(RX);
        // The device has seen short frames, so that it is not prepared for a long one; or has seen none.
        for _ in 0..before {
            net.peer.send(&packet(9, 60)).unwrap();
        }
        net.settle();
        assert_eq!(net.lens(RX).len(), before);
        net.peer.send(&packet(2, 40_000)).unwrap();
        net.settle();
        let used = net.lens(RX);
        assert_eq!(used.len(), 27);
        assert_eq!(used.iter().sum::<u32>(), 40_012);
        let got: Vec<u8> = addresses[before..before + 27]
            .iter()
            .zip(&used)
            .flat_map(|(address, len)| net.harness.fetch(*address, *len as usize))
            .collect();
        assert_eq!(got[10], 27, "num_buffers");
        assert_eq!(got[HEADER..], frame(2, 40_000));
    }
}

#[test]
fn a_long_frame_waits_for_buffers_and_is_not_lost() {
    let mut net = tap(MERGEABLE | EVENT_IDX);
    let mut addresses = net.offer(3, 1000);
    net.harness.kick(RX);
    net.peer.send(&packet(3, 4500)).unwrap();
    net.peer.send(&packet(4, 100)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [0; 0]);
    assert_eq!(net.harness.avail_event(RX), 3, "asks to be told of the next buffer");
    addresses.extend(net.offer(1, 1000));
    net.harness.kick(RX);
    assert_eq!(net.lens(RX), [0; 0]);
    addresses.extend(net.offer(3, 1000));
    net.harness.kick(RX);
    assert_eq!(net.lens(RX), [1000, 1000, 1000, 1000, 512, 112]);
    let got: Vec<u8> =
        addresses[..5].iter().flat_map(|address| net.harness.fetch(*address, 1000)).take(4512).collect();
    assert_eq!(got[HEADER..], frame(3, 4500));
    assert_eq!(net.metrics.rx_dropped.get(), 0);
}

#[test]
fn a_frame_longer_than_any_buffer_is_dropped_and_the_next_one_comes() {
    let mut net = tap(0);
    net.offer(4, 1526);
    net.harness.kick(RX);
    net.peer.send(&packet(5, 1515)).unwrap();
    net.peer.send(&packet(6, 1514)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [1526]);
    assert_eq!(net.metrics.rx_dropped.get(), 1);

    // The same with as many buffers as the queue has.
    let mut net = tap(MERGEABLE);
    net.harness.start(MERGEABLE, 4);
    net.offer(4, 500);
    net.harness.kick(RX);
    net.peer.send(&packet(5, 1989)).unwrap();
    net.peer.send(&packet(6, 1988)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [500; 4]);
    assert_eq!(net.metrics.rx_dropped.get(), 1);
}

#[test]
fn a_header_may_be_in_pieces_both_ways() {
    let mut net = tap(0);
    let (a, b, c) = (net.harness.allocate(5, 0), net.harness.allocate(6, 0), net.harness.allocate(100, 0));
    net.harness.add_chain(RX, &[Buffer::writable(a, 5), Buffer::writable(b, 6), Buffer::writable(c, 100)]);
    net.harness.kick(RX);
    net.peer.send(&packet(1, 60)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [72]);
    assert_eq!(net.harness.fetch(b + 5, 1), [1], "num_buffers, its first half");
    assert_eq!(net.harness.fetch(c + 1, 60), frame(1, 60));

    let sent = packet(2, 60);
    let parts: Vec<Buffer> = [0..3, 3..12, 12..12, 12..72]
        .map(|range| {
            let part = &sent[range];
            Buffer::readable(net.harness.place(part), part.len() as u32)
        })
        .to_vec();
    net.harness.add_chain(TX, &parts);
    net.harness.add_indirect_chain(TX, &parts);
    net.harness.kick(TX);
    assert_eq!(net.lens(TX), [0, 0]);
    for _ in 0..2 {
        let mut got = [0; 100];
        assert_eq!(net.peer.recv(&mut got).unwrap(), 72);
        assert_eq!(got[..72], sent);
    }
}

#[test]
fn frames_are_sent_in_order_with_one_interrupt_at_most() {
    let mut net = tap(EVENT_IDX);
    net.harness.set_used_event(TX, 5);
    for seed in 0..8 {
        net.put(&frame(seed, 100));
    }
    net.harness.kick(TX);
    assert_eq!(net.harness.interrupts(), 1);
    let mut got = [0; 200];
    for seed in 0..8 {
        let len = net.peer.recv(&mut got).unwrap();
        assert_eq!(got[HEADER..len], frame(seed, 100));
    }
    net.put(&frame(9, 100));
    net.harness.kick(TX);
    assert_eq!(net.harness.interrupts(), 1, "nobody waits for one");
    assert_eq!((net.metrics.tx_frames.get(), net.metrics.tx_bytes.get()), (9, 900));
}

#[test]
fn an_interrupt_that_is_waited_for_comes_with_buffers_that_are_seen_together() {
    let mut net = tap(MERGEABLE | EVENT_IDX);
    net.offer(20, 1000);
    // The driver waits for the first of the buffers that come at once.
    net.harness.set_used_event(RX, 0);
    net.harness.kick(RX);
    net.peer.send(&packet(1, 5000)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX).len(), 6);
    assert_eq!(net.harness.interrupts(), 1);
}

#[test]
fn a_peer_that_never_reads_stops_the_guest_and_nothing_else() {
    let mut net = tap(EVENT_IDX);
    let (mut put, mut used) = (0, 0);
    while put == used {
        net.put(&frame(1, 1000));
        put += 1;
        net.harness.kick(TX);
        used += net.lens(TX).len();
        assert!(put < 10_000, "the socket takes everything");
    }
    for _ in 0..20 {
        net.put(&frame(2, 1000));
        net.harness.kick(TX);
    }
    assert_eq!(net.lens(TX).len(), 0);
    assert!(net.metrics.tx_stalled.get() > 0);
    // The other direction goes on.
    net.offer(1, 1526);
    net.harness.kick(RX);
    net.peer.send(&packet(3, 60)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [72]);
    // Once it reads, everything comes, in order.
    let mut got = Vec::new();
    while got.len() < put + 20 {
        let mut data = [0; 2000];
        match net.peer.recv(&mut data) {
            Ok(len) => got.push(data[..len].to_vec()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        net.settle();
    }
    assert!(got[..put].iter().all(|packet| packet[HEADER..] == frame(1, 1000)));
    assert!(got[put..].iter().all(|packet| packet[HEADER..] == frame(2, 1000)));
    assert_eq!(net.lens(TX).len(), 21);
}

#[test]
fn a_reset_forgets_what_is_half_done_and_the_device_works_again() {
    let mut net = tap(MERGEABLE);
    net.offer(2, 1000);
    net.harness.kick(RX);
    net.peer.send(&packet(3, 4500)).unwrap();
    net.settle();
    net.harness.start(MERGEABLE, 64);
    net.offer(2, 1000);
    net.settle();
    net.harness.kick(RX);
    net.peer.send(&packet(4, 100)).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [112]);
}
