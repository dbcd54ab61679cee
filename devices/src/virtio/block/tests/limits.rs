//! Requests that wait for the rate limiter.

use std::time::{Duration, Instant};

use virtio_bindings::virtio_blk::VIRTIO_BLK_T_FLUSH;
use virtio_bindings::virtio_mmio as mmio;

use super::*;
use crate::rate_limiter::{RateLimiterConfig, TokenBucketConfig};
use crate::virtio::device::DeviceEvent;

fn bucket(size: u64, refill_time: u64) -> TokenBucketConfig {
    TokenBucketConfig { size, refill_time, one_time_burst: None }
}

fn limited(engine: IoEngine, bandwidth: Option<TokenBucketConfig>, ops: Option<TokenBucketConfig>) -> Disk {
    Disk::with(engine, FLUSH, |config| config.rate_limiter = Some(RateLimiterConfig { bandwidth, ops }))
}

/// How long the device takes for what is in its ring.
fn time_to_finish(disk: &mut Disk, count: usize) -> Duration {
    let begin = Instant::now();
    disk.harness.kick(0);
    disk.harness.wait_used(0, count);
    begin.elapsed()
}

#[test]
fn requests_wait_in_the_ring_until_their_time_comes() {
    for engine in ENGINES {
        let mut disk = limited(engine, None, Some(bucket(5, 100)));
        let statuses = disk.add_reads(20);
        disk.harness.kick(0);
        assert_eq!(disk.harness.wait_used(0, 5).len(), 5, "{engine:?}: the bucket was full");
        disk.harness.kick(0);
        assert_eq!(disk.harness.take_used(0).len(), 0, "another notification does not help");
        let taken = time_to_finish(&mut disk, 15);
        assert!(taken >= Duration::from_millis(280), "{engine:?}: {taken:?}");
        assert!(statuses.iter().all(|status| disk.harness.fetch(*status, 1) == [OK]));
        assert!(disk.metrics.limited.get() >= 1);
    }
}

#[test]
fn bytes_count_and_a_request_larger_than_the_bucket_passes() {
    for engine in ENGINES {
        let mut disk = limited(engine, Some(bucket(64 << 10, 50)), None);
        assert_eq!(disk.read(0, 512 << 10).0, OK, "eight times the bucket");
        let begin = Instant::now();
        assert_eq!(disk.write(0, &[1; 512]), OK);
        let taken = begin.elapsed();
        assert!(taken >= Duration::from_millis(345), "{engine:?}: it pays for the one before: {taken:?}");
    }
}

#[test]
fn flushes_and_requests_that_are_refused_are_operations_too() {
    for header in [header(VIRTIO_BLK_T_FLUSH, 0), header(77, 0), header(VIRTIO_BLK_T_IN, u64::MAX)] {
        let mut disk = limited(IoEngine::Sync, Some(bucket(1, 1_000_000)), Some(bucket(1, 100)));
        for _ in 0..4 {
            let (buffers, _) = disk.buffers(&header, &[]);
            disk.harness.add_chain(0, &buffers);
        }
        let taken = time_to_finish(&mut disk, 4);
        assert!(taken >= Duration::from_millis(295), "{taken:?}");
    }
}

#[test]
fn a_limit_that_is_lifted_lets_what_waits_pass_at_once() {
    for engine in ENGINES {
        let mut disk = limited(engine, None, Some(bucket(1, 1_000_000)));
        disk.add_reads(20);
        disk.harness.kick(0);
        disk.harness.wait_used(0, 1);
        let unlimited = RateLimiterConfig { bandwidth: None, ops: Some(bucket(0, 0)) };
        disk.device().set_rate_limiter(&unlimited);
        assert_eq!(disk.harness.wait_used(0, 19).len(), 19, "{engine:?}");
    }
}

#[test]
fn a_limit_can_be_set_while_the_device_runs() {
    let mut disk = Disk::new(IoEngine::Async);
    assert_eq!(disk.read(1, 512).0, OK);
    disk.device().set_rate_limiter(&RateLimiterConfig { bandwidth: Some(bucket(512, 50)), ops: None });
    disk.add_reads(5);
    assert!(time_to_finish(&mut disk, 5) >= Duration::from_millis(195));
}

#[test]
fn a_reset_of_a_limited_device_leaves_nothing_behind_and_does_not_lift_the_limit() {
    for engine in ENGINES {
        let mut disk = limited(engine, None, Some(bucket(2, 200)));
        let statuses = disk.add_reads(4);
        disk.harness.core().process(DeviceEvent::Queue(0));
        disk.harness.write(mmio::VIRTIO_MMIO_STATUS, 0);
        assert_eq!(disk.harness.fetch(statuses[3], 1), [UNTOUCHED]);
        assert!(!disk.harness.run_once(Duration::from_millis(120)), "no timer wakes an idle device");
        disk.harness.start(FLUSH, 64);
        disk.add_reads(4);
        let taken = time_to_finish(&mut disk, 4);
        // Of the 400 ms for four, 120 and a little have passed.
        assert!(taken >= Duration::from_millis(150), "{engine:?}: {taken:?}");
        assert_eq!(disk.harness.fetch(statuses[3], 1), [UNTOUCHED]);
    }
}

#[test]
fn a_driver_that_changes_its_mind_about_a_request_that_waits_is_served_what_it_wants_now() {
    let mut disk = limited(IoEngine::Sync, None, Some(bucket(1, 50)));
    assert_eq!(disk.read(0, 512).0, OK);
    let address = disk.harness.allocate(512, UNTOUCHED);
    let (buffers, status) =
        disk.buffers(&header(VIRTIO_BLK_T_IN, u64::MAX), &[Buffer::writable(address, 512)]);
    let head = disk.harness.place(&header(VIRTIO_BLK_T_IN, 3));
    disk.harness.add_chain(0, &buffers);
    disk.harness.kick(0);
    assert_eq!(disk.harness.fetch(status, 1), [UNTOUCHED]);
    let good = disk.harness.fetch(head, 16);
    let bad = head - 32;
    // The header of the request that waits was placed just before the status and this one.
    let header_at =
        (bad..head).step_by(16).find(|at| disk.harness.fetch(*at, 16) == header(VIRTIO_BLK_T_IN, u64::MAX));
    let header_at = header_at.expect("the header is there");
    vm_memory::Bytes::write_slice(disk.harness.memory(), &good, vm_memory::GuestAddress(header_at)).unwrap();
    disk.harness.wait_used(0, 1);
    assert_eq!((disk.harness.fetch(status, 1), disk.harness.fetch(address, 512)), (vec![OK], sector(3)));
}
