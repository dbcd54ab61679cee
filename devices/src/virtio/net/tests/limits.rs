//! Rate limits, each way.

use std::time::Instant;

use super::*;
use crate::rate_limiter::{RateLimiterConfig, TokenBucketConfig};

fn limit(size: u64, refill_time: u64) -> RateLimiterConfig {
    let bucket = TokenBucketConfig { size, refill_time, one_time_burst: None };
    RateLimiterConfig { bandwidth: Some(bucket), ops: None }
}

fn limited(rx: Option<RateLimiterConfig>, tx: Option<RateLimiterConfig>) -> Fixture<UnixDatagram> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).unwrap();
    }
    let config = NetConfig { rx_rate_limiter: rx, tx_rate_limiter: tx, ..config() };
    let mut fixture = Fixture::new(&config, Peer::Packets(OwnedFd::from(theirs)), ours);
    fixture.harness.start(0, 64);
    fixture
}

#[test]
fn what_the_guest_sends_waits_for_tokens() {
    let mut net = limited(None, Some(limit(1000, 50)));
    let begin = Instant::now();
    for seed in 0..4 {
        net.put(&frame(seed, 500));
    }
    net.harness.kick(TX);
    assert_eq!(net.lens(TX).len(), 2);
    assert_eq!(net.metrics.tx_limited.get(), 1);
    assert_eq!(net.harness.wait_used(TX, 2).len(), 2);
    assert!(begin.elapsed() >= Duration::from_millis(40), "{:?}", begin.elapsed());
}

#[test]
fn what_the_guest_receives_waits_for_tokens_and_is_not_lost() {
    let mut net = limited(Some(limit(1000, 50)), None);
    let begin = Instant::now();
    let addresses = net.offer(4, 600);
    net.harness.kick(RX);
    for seed in 0..4 {
        net.peer.send(&[&[0; HEADER][..], &frame(seed, 500)].concat()).unwrap();
    }
    net.settle();
    assert_eq!(net.lens(RX).len(), 2);
    assert_eq!(net.harness.wait_used(RX, 2).len(), 2);
    assert!(begin.elapsed() >= Duration::from_millis(40), "{:?}", begin.elapsed());
    for (seed, address) in (0..).zip(addresses) {
        assert_eq!(net.harness.fetch(address + 12, 500), frame(seed, 500));
    }
}

#[test]
fn a_limit_is_lifted_while_frames_wait_for_it() {
    let mut net = limited(Some(limit(500, 3_600_000)), Some(limit(500, 3_600_000)));
    net.offer(2, 600);
    net.harness.kick(RX);
    for seed in 0..2 {
        net.put(&frame(seed, 500));
        net.peer.send(&[&[0; HEADER][..], &frame(seed, 500)].concat()).unwrap();
    }
    net.harness.kick(TX);
    net.settle();
    assert_eq!((net.lens(RX).len(), net.lens(TX).len()), (1, 1));
    net.device.lock().unwrap().set_rate_limiters(Some(&limit(0, 0)), None);
    net.settle();
    assert_eq!((net.lens(RX).len(), net.lens(TX).len()), (1, 0));
    net.device.lock().unwrap().set_rate_limiters(None, Some(&limit(0, 0)));
    net.settle();
    assert_eq!((net.lens(RX).len(), net.lens(TX).len()), (0, 1));
}
