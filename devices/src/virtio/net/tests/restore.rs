//! An interface that is saved in the middle of its traffic, and restored into another process's device.

use super::*;
use crate::rate_limiter::{RateLimiterConfig, TokenBucketConfig};
use crate::state::StateError;
use crate::virtio::state::{DeviceState, VirtioStateV1};

fn sockets() -> (UnixDatagram, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).unwrap();
    }
    (ours, theirs)
}

fn with_config(config: &NetConfig) -> Fixture<UnixDatagram> {
    let (ours, theirs) = sockets();
    Fixture::new(config, Peer::Packets(OwnedFd::from(theirs)), ours)
}

impl<P> Fixture<P> {
    fn restore<Q>(
        &self,
        state: &VirtioStateV1,
        config: &NetConfig,
        other_end: Peer,
        peer: Q,
    ) -> Result<Fixture<Q>, StateError> {
        let device = NetDevice::over_socket(config, other_end).unwrap();
        let metrics = device.metrics();
        let device = Arc::new(Mutex::new(device));
        let mut harness = self.harness.restored(device.clone(), state)?;
        harness.resume();
        Ok(Fixture { harness, device, metrics, peer })
    }
}

impl Fixture<UnixDatagram> {
    /// The guest, restored from `state`, with another tap.
    fn restored(&self, state: &VirtioStateV1, config: &NetConfig) -> Result<Self, StateError> {
        let (ours, theirs) = sockets();
        self.restore(state, config, Peer::Packets(OwnedFd::from(theirs)), ours)
    }

    /// A frame for the guest.
    fn send(&mut self, frame: &[u8]) {
        self.peer.send(&[&[0; HEADER][..], frame].concat()).unwrap();
        self.settle();
    }

    /// The frames that came from the guest, by their first byte and length.
    fn sent(&mut self) -> Vec<(u8, usize)> {
        let mut packet = vec![0; 1 << 17];
        std::iter::from_fn(|| self.peer.recv(&mut packet).ok().map(|len| (packet[HEADER], len - HEADER)))
            .collect()
    }
}

fn heads(net: &mut Fixture<impl Sized>, queue: u32) -> Vec<u32> {
    net.harness.take_used(queue).iter().map(|used| used.head).collect()
}

#[test]
fn buffers_that_the_device_held_are_filled_once_wherever_the_guest_goes_on() {
    let mut net = tap(MERGEABLE);
    let addresses = net.offer(8, 600);
    net.harness.kick(RX);
    net.send(&frame(1, 700));
    assert_eq!(heads(&mut net, RX), [0, 1]);
    let state = net.harness.save();
    let mut restored = net.restored(&state, &config()).unwrap();
    for net in [&mut net, &mut restored] {
        net.send(&frame(2, 100));
        net.send(&frame(3, 1000));
        assert_eq!(heads(net, RX), [2, 3, 4]);
        assert_eq!(net.harness.fetch(addresses[2] + 12, 100), frame(2, 100));
        assert_eq!(net.harness.fetch(addresses[3] + 12, 588), frame(3, 1000)[..588]);
        net.put(&frame(4, 60));
        net.harness.kick(TX);
        assert_eq!(heads(net, TX), [0]);
        assert_eq!(net.sent(), [(frame(4, 60)[0], 60)]);
        assert!(!net.harness.needs_reset());
    }
}

#[test]
fn a_useless_buffer_between_good_ones_is_given_back_once_wherever_the_guest_goes_on() {
    let mut net = tap(MERGEABLE);
    net.offer(1, 600);
    let address = net.harness.allocate(100, 0);
    net.harness.add_chain(RX, &[Buffer::readable(address, 100)]);
    net.offer(2, 600);
    net.harness.kick(RX);
    let mut used = heads(&mut net, RX);
    assert!(used.is_empty(), "all are held");
    let state = net.harness.save();
    let mut restored = net.restored(&state, &config()).unwrap();
    for net in [&mut net, &mut restored] {
        for seed in 0..3 {
            net.send(&frame(seed, 100));
        }
        used = heads(net, RX);
        used.sort_unstable();
        assert_eq!(used, [0, 1, 2, 3]);
        assert!(!net.harness.needs_reset());
    }
}

#[test]
fn a_frame_that_waits_for_the_limiter_is_the_guest_s_when_it_is_saved() {
    let bucket = TokenBucketConfig { size: 500, refill_time: 3_600_000, one_time_burst: None };
    let limit = RateLimiterConfig { bandwidth: Some(bucket), ops: None };
    let limited = NetConfig { rx_rate_limiter: Some(limit), ..config() };
    let mut net = with_config(&limited);
    net.harness.start(0, 64);
    let addresses = net.offer(4, 600);
    net.harness.kick(RX);
    net.send(&frame(1, 400));
    net.send(&frame(2, 300));
    assert_eq!(heads(&mut net, RX), [0]);
    let state = net.harness.save();
    let mut restored = net.restored(&state, &limited).unwrap();
    for net in [&mut net, &mut restored] {
        assert_eq!(heads(net, RX), [1]);
        assert_eq!(net.harness.fetch(addresses[1] + 12, 300), frame(2, 300));
    }
    restored.send(&frame(3, 500));
    assert_eq!(heads(&mut restored, RX), [2], "its bucket is full");
}

#[test]
fn a_frame_that_has_come_in_half_is_the_saved_device_s_alone() {
    let mut net = passt(MERGEABLE);
    net.offer(16, 600);
    net.harness.kick(RX);
    let whole = [&5000_u32.to_be_bytes()[..], &frame(1, 5000)].concat();
    let (first, second) = whole.split_at(2000);
    net.peer.write_all(first).unwrap();
    net.settle();
    let state = net.harness.save();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(&[&100_u32.to_be_bytes()[..], &frame(2, 100)].concat()).unwrap();
    let mut restored = net.restore(&state, &config(), Peer::Stream(theirs), ours).unwrap();
    restored.settle();
    assert_eq!(restored.lens(RX), [112], "the next frame is whole, in the first buffer");
    net.peer.write_all(second).unwrap();
    net.settle();
    let lens = net.lens(RX);
    assert_eq!((lens.len(), lens.iter().sum()), (9, 5012), "and so is the one that was begun");
}

#[test]
fn frames_that_the_host_had_no_room_for_are_sent_once_wherever_the_guest_goes_on() {
    let mut net = tap(0);
    let mut put = 0;
    while net.metrics.tx_stalled.get() == 0 {
        for _ in 0..8 {
            net.put(&frame(put, 16_000));
            put += 1;
        }
        net.harness.kick(TX);
        assert!(put < 64, "the socket takes all");
    }
    let mut done = heads(&mut net, TX).len();
    assert!(done < put.into());
    let state = net.harness.save();
    let mut restored = net.restored(&state, &config()).unwrap();
    let begun: Vec<_> = net.sent();
    assert_eq!(begun.len(), done);
    for net in [&mut net, &mut restored] {
        let mut sent = Vec::new();
        let mut used = heads(net, TX);
        while used.len() + done < put.into() {
            sent.extend(net.sent());
            net.settle();
            used.extend(heads(net, TX));
        }
        sent.extend(net.sent());
        let expected: Vec<_> = (done as u8..put).map(|seed| (frame(seed, 1)[0], 16_000)).collect();
        assert_eq!(sent, expected);
        assert_eq!(used, (done as u32..put.into()).collect::<Vec<_>>());
    }
    done = restored.harness.take_used(TX).len();
    assert_eq!(done, 0);
}

#[test]
fn a_generated_address_stays_the_guest_s_and_one_that_is_given_is_taken() {
    let net = with_config(&NetConfig { guest_mac: None, ..config() });
    let state = net.harness.save();
    // Another tap, from which another address would be generated.
    let elsewhere = NetConfig { guest_mac: None, host_dev_name: Some("tap9".to_owned()), ..config() };
    let restored = net.restored(&state, &elsewhere).unwrap();
    assert_ne!(with_config(&elsewhere).device.lock().unwrap().mac(), net.device.lock().unwrap().mac());
    assert_eq!(restored.harness.config(0, 6), net.harness.config(0, 6));
    assert_eq!(restored.harness.save(), state);
    let given = net.restored(&state, &config()).unwrap();
    assert_eq!(given.harness.config(0, 6), [2, 0, 0, 0, 0, 7]);
}

#[test]
fn a_link_that_was_down_comes_up_and_the_guest_is_told() {
    let mut net = passt(STATUS);
    net.offer(1, 600);
    net.harness.kick(RX);
    let (peer, _) = UnixStream::pair().unwrap();
    net.peer = peer;
    net.settle();
    assert_eq!(net.harness.config(6, 2), [0, 0], "the cable is pulled out");
    let state = net.harness.save();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let restored = net.restore(&state, &config(), Peer::Stream(theirs), ours).unwrap();
    assert_eq!(restored.harness.config(6, 2), [1, 0]);
    let status = restored.harness.read(virtio_bindings::virtio_mmio::VIRTIO_MMIO_INTERRUPT_STATUS);
    assert_eq!(status & 2, 2, "a change of the configuration");
}

#[test]
fn what_no_interface_has_is_refused() {
    let net = tap(0);
    let state = net.harness.save();
    for (change, reason) in [
        (NetStateV1 { mac: [1, 0, 0, 0, 0, 0], link_up: true, mtu: 0 }, "multicast"),
        (NetStateV1 { mac: [0; 6], link_up: true, mtu: 0 }, "zeroes"),
        (NetStateV1 { mac: [2; 6], link_up: true, mtu: 1400 }, "MTU of 1400"),
    ] {
        let state = VirtioStateV1 { device: DeviceState::NetV1(change), ..state.clone() };
        let error = net.restored(&state, &config()).map(drop).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let vhost = DeviceState::VhostNetV1(VhostNetStateV1::default());
    let state = VirtioStateV1 { device: vhost, ..state };
    let error = net.restored(&state, &config()).map(drop).unwrap_err().to_string();
    assert!(error.contains("of vhost-net, and this is a network device"), "{error}");
}
