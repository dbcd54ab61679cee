use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::*;
use crate::rate_limiter::{RateLimiterConfig, TokenBucketConfig};
use crate::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE, TransportKind, Used};

fn device(rate_limiter: Option<RateLimiterConfig>) -> RngDevice {
    RngDevice::new(&EntropyConfig { rate_limiter }).unwrap()
}

fn started() -> Harness {
    Harness::started(device(None), 0, 16)
}

#[test]
fn buffers_are_filled_whatever_their_pieces_and_the_transport() {
    for transport in [TransportKind::Mmio, TransportKind::Pci] {
        buffers_are_filled(Harness::started_behind(transport, device(None), 0, 16));
    }
}

fn buffers_are_filled(mut harness: Harness) {
    let (first, second) = (harness.allocate(100, 0), harness.allocate(5000, 0));
    let head = harness.add_chain(0, &[Buffer::writable(first, 100), Buffer::writable(second, 5000)]);
    harness.kick(0);
    assert_eq!(harness.take_used(0), [Used { head: u32::from(head), len: 5100 }]);
    assert_ne!(harness.fetch(first, 100), [0; 100]);
    assert_ne!(harness.fetch(second + 4900, 100), [0; 100]);
    assert_eq!(harness.interrupts(), 1);
}

#[test]
fn one_request_gets_no_more_than_the_limit() {
    let mut harness = started();
    let address = harness.allocate(1 << 20, 0);
    harness.add_chain(0, &[Buffer::writable(address, 1 << 20)]);
    harness.kick(0);
    assert_eq!(u64::from(harness.take_used(0)[0].len), MAX_BYTES_PER_REQUEST);
    let after = address + MAX_BYTES_PER_REQUEST;
    assert_eq!(harness.fetch(after, 4096), [0; 4096]);
}

#[test]
fn a_request_without_room_or_outside_of_memory_gets_nothing_and_the_device_goes_on() {
    let mut harness = started();
    let address = harness.allocate(16, 0);
    harness.add_chain(0, &[Buffer::readable(address, 16)]);
    harness.add_chain(0, &[Buffer::writable(MEMORY_SIZE, 16)]);
    harness.add_chain(0, &[Buffer::writable(u64::MAX - 3, 16)]);
    harness.add_chain(0, &[Buffer::writable(address, 16)]);
    harness.kick(0);
    let lens: Vec<_> = harness.take_used(0).iter().map(|used| used.len).collect();
    assert_eq!(lens, [0, 0, 0, 16]);
    assert!(!harness.needs_reset());
}

#[test]
fn a_full_ring_is_served_in_shares_and_none_is_lost() {
    let mut harness = Harness::started(device(None), 1 << VIRTIO_RING_F_EVENT_IDX, 64);
    let address = harness.allocate(64, 0);
    for _ in 0..64 {
        harness.add_chain(0, &[Buffer::writable(address, 64)]);
    }
    harness.kick(0);
    assert_eq!(harness.take_used(0).len(), 64);
    assert_eq!(harness.avail_event(0), 64, "asks for the next notification");
}

/// 4096 bytes per `refill_time` milliseconds.
fn limited(refill_time: u64) -> RngDevice {
    let bandwidth = Some(TokenBucketConfig { size: 4096, refill_time, one_time_burst: None });
    device(Some(RateLimiterConfig { bandwidth, ops: None }))
}

#[test]
fn a_limited_device_fills_requests_when_their_time_comes() {
    let device = limited(100);
    let metrics = device.metrics();
    let mut harness = Harness::started(device, 0, 16);
    let address = harness.allocate(4096, 0);
    let begin = std::time::Instant::now();
    for _ in 0..4 {
        harness.add_chain(0, &[Buffer::writable(address, 4096)]);
    }
    harness.kick(0);
    assert_eq!(harness.take_used(0).len(), 1, "the rest stays in the ring");
    harness.kick(0);
    assert_eq!(harness.take_used(0).len(), 0, "another notification does not help");
    assert_eq!(harness.wait_used(0, 3).len(), 3);
    assert!(begin.elapsed().as_millis() >= 290, "{:?}", begin.elapsed());
    assert!(metrics.limited.get() >= 3);
}

#[test]
fn a_reset_of_a_limited_device_leaves_nothing_behind() {
    let mut harness = Harness::started(limited(20), 0, 16);
    let address = harness.allocate(4096, 0);
    for _ in 0..2 {
        harness.add_chain(0, &[Buffer::writable(address, 4096)]);
    }
    harness.kick(0);
    harness.write(virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS, 0);
    assert!(!harness.run_once(std::time::Duration::from_millis(50)), "no timer wakes an idle device");
    harness.start(0, 16);
    harness.add_chain(0, &[Buffer::writable(address, 16)]);
    harness.kick(0);
    assert_eq!(harness.wait_used(0, 1)[0].len, 16);
}

#[test]
fn unknown_fields_are_refused() {
    let error = serde_json::from_str::<EntropyConfig>(r#"{"rate": 1}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `rate`"), "{error}");
}
