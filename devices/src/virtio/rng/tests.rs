use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::*;
use crate::rate_limiter::RateLimiterConfig;
use crate::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE, TransportKind, Used};

fn started() -> Harness {
    Harness::started(RngDevice::new(), 0, 16)
}

#[test]
fn buffers_are_filled_whatever_their_pieces_and_the_transport() {
    for transport in [TransportKind::Mmio, TransportKind::Pci] {
        buffers_are_filled(Harness::started_behind(transport, RngDevice::new(), 0, 16));
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
    let mut harness = Harness::started(RngDevice::new(), 1 << VIRTIO_RING_F_EVENT_IDX, 64);
    let address = harness.allocate(64, 0);
    for _ in 0..64 {
        harness.add_chain(0, &[Buffer::writable(address, 64)]);
    }
    harness.kick(0);
    assert_eq!(harness.take_used(0).len(), 64);
    assert_eq!(harness.avail_event(0), 64, "asks for the next notification");
}

#[test]
fn a_rate_limiter_is_refused_by_name() {
    assert_eq!(EntropyConfig::default().validate(), Ok(()));
    let limited = EntropyConfig { rate_limiter: Some(RateLimiterConfig::default()) };
    assert_eq!(limited.validate().unwrap_err().to_string(), "entropy: rate_limiter is not supported yet");
    assert!(serde_json::from_str::<EntropyConfig>(r#"{"rate": 1}"#).is_err());
}
