//! Limits as a device sees them, on a clock that the test moves.

use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::*;

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1000 * MS;
/// The clock at the start: not 0, as that of no host is.
const START: Nanos = 12_345_678_901_234;

fn bucket(size: u64, refill_time: u64) -> TokenBucketConfig {
    TokenBucketConfig { size, refill_time, one_time_burst: None }
}

fn config(bandwidth: Option<TokenBucketConfig>, ops: Option<TokenBucketConfig>) -> RateLimiterConfig {
    RateLimiterConfig { bandwidth, ops }
}

/// A limiter, and a clock that jumps to where the limiter's timer wakes the device, `late` nanoseconds after it.
struct Device {
    limiter: RateLimiter,
    now: Nanos,
    late: Nanos,
}

impl Device {
    fn new(bandwidth: Option<TokenBucketConfig>, ops: Option<TokenBucketConfig>) -> Self {
        let mut limiter = RateLimiter::new(&RateLimiterConfig::default()).unwrap();
        limiter.update_at(START, &config(bandwidth, ops));
        Self { limiter, now: START, late: 0 }
    }

    /// Operations of `bytes` that pass at once, at most `most`.
    fn pass(&mut self, bytes: u64, most: usize) -> usize {
        (0..most).take_while(|_| self.limiter.take_at(self.now, bytes)).count()
    }

    /// Nanoseconds until the timer that was armed fires.
    fn armed_for(&self) -> Nanos {
        self.limiter.blocked_until.expect("something waits") - self.now
    }

    fn wait(&mut self) {
        self.now += self.armed_for() + self.late;
        self.limiter.wake_at(self.now);
    }

    /// Operations of `bytes` that pass in `duration`, from a device that always has another one.
    fn saturate(&mut self, bytes: u64, duration: Nanos) -> u64 {
        let end = self.now + duration;
        let mut passed = 0;
        loop {
            while self.limiter.take_at(self.now, bytes) {
                passed += 1;
            }
            if self.now + self.armed_for() + self.late > end {
                return passed;
            }
            self.wait();
        }
    }
}

#[track_caller]
fn assert_within(actual: u64, expected: u64, percent: u64) {
    assert!(actual.abs_diff(expected) * 100 <= expected * percent, "{actual}, not {expected} ± {percent} %");
}

#[test]
fn without_limits_everything_passes_and_nothing_is_armed() {
    for config in [
        config(None, None),
        config(Some(bucket(0, 100)), Some(bucket(100, 0))),
        config(None, Some(bucket(0, 0))),
    ] {
        let mut limiter = RateLimiter::new(&config).unwrap();
        assert!((0..1000).all(|_| limiter.take(u64::MAX)), "{config:?}");
        assert!(!limiter.is_blocked());
    }
}

#[test]
fn a_full_bucket_passes_at_once_and_the_next_operation_when_its_tokens_are_there() {
    let mut device = Device::new(None, Some(bucket(10, 1000)));
    assert_eq!(device.pass(1 << 30, 100), 10);
    assert_eq!(device.armed_for(), 100 * MS);
    device.wait();
    assert_eq!(device.pass(1 << 30, 100), 1);

    let mut device = Device::new(Some(bucket(1000, 1000)), None);
    assert_eq!(device.pass(300, 100), 3, "100 are left");
    assert_eq!(device.armed_for(), 200 * MS);
}

#[test]
fn a_one_time_burst_is_spent_first_and_never_again() {
    let burst = TokenBucketConfig { one_time_burst: Some(5), ..bucket(10, 1000) };
    let mut device = Device::new(None, Some(burst));
    assert_eq!(device.pass(0, 100), 15);
    device.wait();
    device.now += 100 * SECOND;
    assert_eq!(device.pass(0, 100), 10, "the bucket alone");
}

#[test]
fn what_one_bucket_refuses_is_not_taken_from_the_other() {
    let mut device = Device::new(Some(bucket(1000, 1000)), Some(bucket(2, 1000)));
    assert_eq!(device.pass(1, 100), 2);
    assert_eq!(device.armed_for(), 500 * MS);
    device.wait();
    assert_eq!(device.pass(1000, 1), 1, "all bytes are there");
    device.now += SECOND / 2;
    assert_eq!(
        (device.pass(1001, 1), device.armed_for()),
        (0, 500 * MS),
        "the bytes take a second to come back"
    );
    device.wait();
    assert_eq!(device.pass(1000, 1), 1);
}

#[test]
fn the_average_holds_for_requests_of_every_size() {
    // A request that is larger than the bucket overdraws it; the first bucket is a burst.
    for (size, refill_time) in [(1 << 20, 100), (1 << 20, 1000), (4096, 7), (u64::from(u32::MAX), 60_000)] {
        for request in [1, 512, 4096, 65536, 1 << 20, 16 << 20] {
            if size / request > 10_000 {
                continue;
            }
            for late in [0, 50_000, MS / 2] {
                let mut device = Device::new(Some(bucket(size, refill_time)), None);
                device.late = late;
                device.pass(request, usize::MAX);
                let duration =
                    (10 * SECOND).max(refill_time * MS * 20).max(request / size * refill_time * MS * 20);
                let passed = device.saturate(request, duration) * request;
                let expected = u128::from(size) * u128::from(duration) / u128::from(refill_time * MS);
                let allowed = (expected / 100).max(2 * u128::from(request));
                assert!(
                    u128::from(passed).abs_diff(expected) <= allowed,
                    "{size} per {refill_time} ms, requests of {request}, {late} ns late: {passed} of {expected}"
                );
            }
        }
    }
}

#[test]
fn a_rate_of_operations_holds_though_the_device_is_woken_up_late() {
    for (size, refill_time, late) in
        [(1, 1, MS), (1, 10, 5 * MS), (100, 100, 30 * MS), (5, 1, 0), (1_000_000, 1000, MS)]
    {
        let mut device = Device::new(None, Some(bucket(size, refill_time)));
        device.late = late;
        let passed = device.saturate(4096, 10 * SECOND);
        assert_within(passed - size, 10_000 / refill_time * size, 1);
    }
}

#[test]
fn the_device_is_woken_up_at_most_once_in_a_millisecond() {
    let mut device = Device::new(None, Some(bucket(1_000_000, 1000)));
    device.pass(0, usize::MAX);
    for _ in 0..100 {
        assert_eq!(device.armed_for(), MS);
        device.wait();
        assert_eq!(device.pass(0, usize::MAX), 1000);
    }
}

#[test]
fn extreme_sizes_and_times_neither_overflow_nor_block_for_ever() {
    let extremes = [1, 2, 1000, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for size in extremes {
        for refill_time in extremes {
            let full = TokenBucketConfig { one_time_burst: Some(u64::MAX), ..bucket(size, refill_time) };
            for first in [full, bucket(size, refill_time)] {
                let mut device = Device::new(Some(first.clone()), Some(first));
                for bytes in [0, 1, u64::MAX, u64::MAX, u64::MAX] {
                    device.limiter.take_at(device.now, bytes);
                    device.limiter.refund(bytes);
                    device.limiter.take_at(device.now, bytes);
                    device.now = device.now.wrapping_add(u64::MAX / 3);
                    device.limiter.wake_at(device.now);
                }
            }
        }
    }
}

#[test]
fn tiny_steps_of_the_clock_lose_nothing() {
    let mut device = Device::new(None, Some(bucket(3, 7)));
    assert_eq!(device.pass(0, 100), 3);
    device.limiter.disarm();
    // A third of 7 ms is no whole number of nanoseconds.
    let mut passed = 0;
    for _ in 0..70_000 {
        device.now += 1000;
        device.limiter.disarm();
        passed += device.pass(0, 100);
    }
    assert_eq!(passed, 30);
}

#[test]
fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
    let mut device = Device::new(None, Some(bucket(10, 1000)));
    assert_eq!(device.pass(0, 100), 10);
    device.limiter.disarm();
    assert_eq!(device.pass(0, 100), 0);
    device.limiter.disarm();
    device.now -= 10 * SECOND;
    assert_eq!(device.pass(0, 100), 0);
}

#[test]
fn refunded_tokens_can_be_taken_again() {
    let mut device = Device::new(Some(bucket(1000, 1000)), Some(bucket(1, 1000)));
    assert_eq!(device.pass(1000, 1), 1);
    device.limiter.refund(1000);
    assert_eq!(device.pass(1000, 1), 1);
    device.limiter.refund(u64::MAX);
    device.limiter.refund(u64::MAX);
    assert_eq!(device.pass(1000, 10), 1, "never more than a bucket");
}

#[test]
fn an_update_replaces_the_buckets_that_it_names() {
    let mut device = Device::new(Some(bucket(1000, 1000)), Some(bucket(2, 1000)));
    assert_eq!(device.pass(100, 100), 2);
    device.limiter.update_at(device.now, &config(None, Some(bucket(5, 1000))));
    assert!(!device.limiter.is_blocked());
    assert_eq!(device.pass(100, 100), 5, "new operations, the bytes that were left");
    device.limiter.update_at(device.now, &config(None, Some(bucket(0, 0))));
    assert_eq!(device.pass(100, 100), 3, "no limit on operations, 300 bytes left");
    device.limiter.update_at(device.now, &config(Some(bucket(0, 1)), None));
    assert_eq!(device.pass(100, 100), 100, "no limit at all");
}

#[test]
fn disarming_does_not_give_tokens_back() {
    let mut device = Device::new(None, Some(bucket(10, 1000)));
    assert_eq!(device.pass(0, 100), 10);
    device.limiter.disarm();
    assert!(!device.limiter.is_blocked());
    assert_eq!(device.pass(0, 100), 0);
}

/// Whether `limiter`'s descriptor becomes readable within `timeout`.
fn readable(limiter: &RateLimiter, timeout: Duration) -> bool {
    let epoll = Epoll::new().unwrap();
    epoll.ctl(ControlOperation::Add, limiter.fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
    epoll.wait(timeout.as_millis() as i32, &mut [EpollEvent::default()]).unwrap() == 1
}

#[test]
fn the_descriptor_is_readable_when_the_tokens_are_there_and_not_before() {
    let mut limiter = RateLimiter::new(&config(None, Some(bucket(1, 200)))).unwrap();
    assert!(limiter.take(0));
    let begin = Instant::now();
    assert!(!limiter.take(0));
    assert!(!readable(&limiter, Duration::from_millis(20)));
    assert!(readable(&limiter, Duration::from_secs(10)));
    assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
    limiter.wake();
    assert!(!readable(&limiter, Duration::ZERO), "it was emptied");
    assert!(limiter.take(0));

    assert!(!limiter.take(0));
    limiter.disarm();
    assert!(!readable(&limiter, Duration::from_millis(300)), "it was disarmed");
}

#[test]
fn a_rate_per_second_is_met_with_a_small_bucket() {
    for (rate, size, refill_time) in [
        (10 << 20, 1 << 20, 100),
        (1000, 100, 100),
        (50, 5, 100),
        (1, 1, 1000),
        (2, 1, 500),
        (3, 1, 333),
        (0, 0, 0),
        (1 << 60, ((1 << 60) + 5) / 10, 100),
    ] {
        let bucket = TokenBucketConfig::per_second(rate);
        assert_eq!((bucket.size, bucket.refill_time), (size, refill_time), "{rate}");
    }
    for rate in (1..10_000).chain([1_000_003, u64::MAX]) {
        let bucket = TokenBucketConfig::per_second(rate);
        let met = u128::from(bucket.size) * 1_000_000 / u128::from(bucket.refill_time);
        assert!(met.abs_diff(u128::from(rate) * 1000) <= u128::from(rate) * 10, "{rate}: {bucket:?}");
        assert!(bucket.refill_time <= 150 || bucket.size == 1, "{rate}: {bucket:?}");
    }
}
