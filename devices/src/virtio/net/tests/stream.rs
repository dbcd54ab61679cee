//! A backend that is a stream of frames: passt.

use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_CSUM;

use super::*;

/// A frame as the stream has it.
fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

/// Everything that the device has sent.
fn sent(net: &mut Fixture<UnixStream>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = vec![0; 1 << 20];
    loop {
        match net.peer.read(&mut part) {
            Ok(0) => break,
            Ok(len) => all.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    all
}

/// The frames that are in these buffers, one after the other.
fn received(net: &Fixture<UnixStream>, addresses: &[u64], used: &[Used]) -> Vec<Vec<u8>> {
    let mut rest = addresses.iter().zip(used);
    let mut frames = Vec::new();
    while let Some((address, used)) = rest.next() {
        let mut packet = net.harness.fetch(*address, used.len as usize);
        for _ in 1..u16::from_le_bytes([packet[10], packet[11]]) {
            let (address, used) = rest.next().unwrap();
            packet.extend(net.harness.fetch(*address, used.len as usize));
        }
        frames.push(packet.split_off(HEADER));
    }
    frames
}

#[test]
fn frames_of_the_guest_have_their_lengths_before_them() {
    let mut net = passt(0);
    let frames = [frame(1, 14), frame(2, 1514), frame(3, 60_000), frame(4, 100)];
    for frame in &frames {
        net.put(frame);
    }
    net.harness.kick(TX);
    let mut all = sent(&mut net);
    net.settle();
    all.extend(sent(&mut net));
    assert_eq!(net.lens(TX), [0; 4]);
    assert_eq!(all, frames.map(|frame| framed(&frame)).concat());
}

#[test]
fn frames_come_in_however_the_stream_is_cut() {
    for (cut, buffer) in [(1, 2000), (3, 70), (1000, 2000), (4000, 1000), (65_536, 70_000), (200_000, 1500)] {
        let mut net = passt(MERGEABLE);
        net.harness.start(MERGEABLE, 256);
        let frames: Vec<Vec<u8>> = [60, 14, 1500, 5000, 90, 12_000, 200]
            .iter()
            .zip(1..)
            .map(|(len, seed)| frame(seed, *len))
            .collect();
        let mut addresses = net.offer(256, buffer.min(8000));
        net.harness.kick(RX);
        let stream: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        let mut used = Vec::new();
        for part in stream.chunks(cut) {
            net.peer.write_all(part).unwrap();
            net.settle();
            let more = net.harness.take_used(RX);
            addresses.extend(net.offer(more.len().min(100), buffer.min(8000)));
            used.extend(more);
        }
        net.harness.kick(RX);
        used.extend(net.harness.take_used(RX));
        assert_eq!(received(&net, &addresses, &used), frames, "parts of {cut}");
        assert!(!net.harness.needs_reset());
    }
}

#[test]
fn checksums_that_need_no_look_are_marked_if_the_driver_knows_how() {
    for (features, flags) in [(0, 0), (1 << VIRTIO_NET_F_GUEST_CSUM, 2)] {
        let mut net = passt(features);
        let address = net.offer(1, 2000)[0];
        net.harness.kick(RX);
        net.peer.write_all(&framed(&frame(1, 60))).unwrap();
        net.settle();
        assert_eq!(net.lens(RX), [72]);
        assert_eq!(net.harness.fetch(address, HEADER), [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
}

#[test]
fn a_frame_that_fits_nowhere_is_skipped() {
    let mut net = passt(0);
    let addresses = net.offer(4, 200);
    net.harness.kick(RX);
    for len in [100, 189, 60_000, 188] {
        net.peer.write_all(&framed(&frame(len as u8, len))).unwrap();
        net.settle();
    }
    let used = net.harness.take_used(RX);
    assert_eq!(received(&net, &addresses, &used), [frame(100, 100), frame(188, 188)]);
    assert_eq!(net.metrics.rx_dropped.get(), 2);
}

#[test]
fn a_reset_in_the_middle_of_a_frame_loses_that_frame_only() {
    let mut net = passt(MERGEABLE);
    net.offer(20, 2000);
    net.harness.kick(RX);
    let long = framed(&frame(1, 20_000));
    net.peer.write_all(&long[..9000]).unwrap();
    net.settle();
    net.harness.start(MERGEABLE, 64);
    let addresses = net.offer(20, 2000);
    net.settle();
    net.harness.kick(RX);
    net.peer.write_all(&long[9000..]).unwrap();
    net.peer.write_all(&framed(&frame(2, 77))).unwrap();
    net.settle();
    let used = net.harness.take_used(RX);
    assert_eq!(received(&net, &addresses, &used), [frame(2, 77)]);
}

#[test]
fn a_peer_that_never_reads_stops_the_guest_at_a_bound_and_loses_nothing() {
    for len in [100, 3000, 50_000] {
        let mut net = passt(EVENT_IDX);
        let mut put = 0;
        while net.metrics.tx_stalled.get() == 0 {
            net.put(&frame(put as u8, len));
            put += 1;
            net.harness.kick(TX);
            assert!(put * len < 4 << 20, "bounded");
        }
        let mut all = Vec::new();
        for _ in 0..1000 {
            all.extend(sent(&mut net));
            net.settle();
        }
        let expected: Vec<u8> = (0..put).flat_map(|seed| framed(&frame(seed as u8, len))).collect();
        assert!(all == expected, "{} bytes of {}", all.len(), expected.len());
        assert_eq!(net.lens(TX).len(), put);
    }
}

#[test]
fn the_link_goes_down_when_the_peer_does_and_the_device_lives() {
    let mut net = passt(STATUS);
    assert_eq!(net.harness.config(6, 2), [1, 0], "VIRTIO_NET_S_LINK_UP");
    net.offer(2, 2000);
    net.harness.kick(RX);
    net.peer.write_all(&framed(&frame(1, 60))).unwrap();
    let (closed, _) = UnixStream::pair().unwrap();
    net.peer = closed;
    net.settle();
    assert_eq!(net.lens(RX), [72], "what it had sent before");
    assert_eq!(net.harness.config(6, 2), [0, 0]);
    assert_eq!(net.harness.interrupts(), 2, "one for the frame, one for the link");
    net.put(&frame(1, 100));
    net.harness.kick(TX);
    assert_eq!(net.lens(TX), [0], "sent to nowhere");
    assert_eq!(net.metrics.tx_dropped.get(), 1);
    assert!(!net.harness.needs_reset());
    net.harness.start(STATUS, 64);
    assert_eq!(net.harness.config(6, 2), [0, 0], "it stays down");
}

#[test]
fn a_length_that_no_frame_has_takes_the_link_down() {
    for length in [0, 13, 65_536, u32::MAX] {
        let mut net = passt(STATUS);
        net.offer(2, 2000);
        net.harness.kick(RX);
        net.peer.write_all(&length.to_be_bytes()).unwrap();
        net.settle();
        assert_eq!(net.harness.config(6, 2), [0, 0], "{length}");
    }
}
