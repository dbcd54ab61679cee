//! Drivers that break the rules.

use super::*;
use crate::virtio::device::DeviceEvent;
use crate::virtio::queue_harness::MEMORY_SIZE;

#[test]
fn what_is_no_frame_is_given_back_and_not_sent() {
    for stream in [false, true] {
        let mut harness;
        let metrics;
        let mut peers: (Option<UnixDatagram>, Option<UnixStream>) = (None, None);
        if stream {
            let net = passt(0);
            (harness, metrics, peers.1) = (net.harness, net.metrics, Some(net.peer));
        } else {
            let net = tap(0);
            (harness, metrics, peers.0) = (net.harness, net.metrics, Some(net.peer));
        }
        let address = harness.allocate(70_000, 0xff);
        let longest: u32 = if stream { 65_535 } else { 65_550 };
        let chains: [&[Buffer]; 8] = [
            &[Buffer::readable(address, 0)],
            &[Buffer::readable(address, 11)],
            &[Buffer::readable(address, 12)],
            &[Buffer::readable(address, 25)],
            &[Buffer::readable(address, 12 + longest + 1)],
            &[Buffer::readable(MEMORY_SIZE - 10, 100)],
            &[Buffer::readable(u64::MAX - 5, 100)],
            &[Buffer::writable(address, 100)],
        ];
        for chain in chains {
            harness.add_chain(TX, chain);
        }
        harness.add_chain(TX, &[Buffer::readable(address, 100)]);
        harness.kick(TX);
        assert_eq!(harness.take_used(TX).len(), 9);
        assert_eq!((metrics.tx_invalid.get(), metrics.tx_frames.get()), (8, 1));
        assert!(!harness.needs_reset());
        let mut got = vec![0; 70_000];
        let len = match &mut peers {
            (Some(peer), _) => peer.recv(&mut got).unwrap(),
            (_, Some(peer)) => peer.read(&mut got).unwrap(),
            _ => unreachable!(),
        };
        assert_eq!(len, if stream { 4 + 88 } else { 100 });
    }
}

#[test]
fn useless_receive_buffers_are_given_back_and_good_ones_used() {
    let mut net = tap(MERGEABLE);
    let address = net.harness.allocate(2000, 0);
    net.harness.add_chain(RX, &[Buffer::readable(address, 100)]);
    net.harness.add_chain(RX, &[Buffer::writable(address, 11)]);
    net.harness.add_chain(RX, &[Buffer::writable(MEMORY_SIZE, 2000)]);
    net.harness.add_chain(RX, &[Buffer::writable(address, 2000)]);
    net.harness.kick(RX);
    net.peer.send(&[7; 72]).unwrap();
    net.settle();
    assert_eq!(net.lens(RX), [0, 0, 0, 72]);
    assert!(!net.harness.needs_reset());
}

#[test]
fn buffers_in_many_pieces_do_not_exceed_a_system_call() {
    let mut net = tap(MERGEABLE);
    net.harness.start(MERGEABLE, 256);
    let address = net.harness.allocate(4000, 0);
    let pieces: Vec<Buffer> = (0..480).map(|at| Buffer::writable(address + 4 * at, 4)).collect();
    for _ in 0..20 {
        net.harness.add_indirect_chain(RX, &pieces);
    }
    let pieces: Vec<Buffer> = (0..1024).map(|at| Buffer::writable(address + at, 1)).collect();
    net.harness.add_indirect_chain(RX, &pieces);
    net.harness.kick(RX);
    // In 15,000 bytes there are more pieces than one call takes.
    for len in [1000, 3000, 5000, 15_000, 1000] {
        net.peer.send(&vec![1; len]).unwrap();
        net.settle();
    }
    assert_eq!((net.metrics.rx_frames.get(), net.metrics.rx_dropped.get()), (3, 2));
    assert!(!net.harness.needs_reset());

    let pieces: Vec<Buffer> = (0..1024).map(|at| Buffer::readable(address + at, 1)).collect();
    net.harness.add_indirect_chain(TX, &pieces);
    net.harness.add_indirect_chain(TX, &pieces[..1000]);
    net.harness.kick(TX);
    assert_eq!((net.metrics.tx_invalid.get(), net.metrics.tx_frames.get()), (1, 1));
}

#[test]
fn a_broken_ring_asks_for_a_reset_and_works_after_it() {
    for queue in [RX, TX] {
        let mut net = tap(0);
        net.harness.make_available(queue, 64);
        net.harness.kick(queue);
        assert!(net.harness.needs_reset());
        net.harness.start(0, 64);
        assert!(!net.harness.needs_reset());
        net.put(&frame(1, 100));
        net.harness.kick(TX);
        assert_eq!(net.lens(TX), [0]);
    }
}

#[test]
fn a_driver_that_sets_up_one_queue_only_harms_nobody() {
    for queue in [RX, TX] {
        let mut net = tap(0);
        net.harness.negotiate(crate::virtio::queue_harness::VERSION_1);
        net.harness.set_up_queue(queue, 64);
        let status = net.harness.status();
        net.harness.write(virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS, status | 4);
        net.peer.send(&[0; 100]).unwrap();
        net.harness.kick(RX);
        net.harness.kick(TX);
        assert!(!net.harness.needs_reset());
    }
}

#[test]
fn a_flood_is_served_in_shares() {
    let mut net = tap(EVENT_IDX);
    net.harness.start(EVENT_IDX, 256);
    net.offer(256, 100);
    net.harness.kick(RX);
    let mut got = [0; 200];
    for _ in 0..8 {
        for _ in 0..32 {
            net.put(&frame(1, 20));
        }
        net.harness.kick(TX);
        while net.peer.recv(&mut got).is_ok() {
            net.settle();
        }
    }
    assert_eq!(net.lens(TX).len(), 256);
    for _ in 0..256 {
        while net.peer.send(&[0; 40]).is_err() {
            net.settle();
        }
    }
    net.settle();
    assert_eq!(net.lens(RX).len(), 256);
    assert_eq!(net.harness.avail_event(TX), 256, "asks for the next notification");
}

#[test]
fn a_driver_that_goes_on_adding_useless_receive_buffers_is_served_in_shares() {
    let mut net = tap(0);
    let good = net.harness.allocate(100, 0);
    // Long ones, which take their time to look at.
    let useless = net.harness.add_indirect_chain(RX, &vec![Buffer::readable(good, 1); 400]);
    for _ in 0..62 {
        net.harness.make_available(RX, useless);
    }
    net.harness.add_chain(RX, &[Buffer::writable(good, 100)]);
    for _ in 0..100 {
        let _ = net.peer.send(&[7; 72]);
    }
    let refill = net.harness.refill(RX);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other_vcpu = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            refill();
        }
    });
    std::thread::sleep(Duration::from_millis(10));
    net.harness.core().process(DeviceEvent::Queue(0));
    drop(stop);
    other_vcpu.join().unwrap();
    assert!(!net.harness.needs_reset());
    // Sixty-three useless ones come before each good one.
    let packets = net.metrics.rx_frames.get();
    assert!((1..=4).contains(&packets), "{packets} packets in one call");
}
