//! A token bucket, in integers that neither drift nor overflow.
//!
//! Tokens are counted in shares: one token is as many shares as an empty bucket takes nanoseconds to fill. In one
//! nanosecond the bucket so gains exactly `size` shares, and nothing is rounded.

use super::config::TokenBucketConfig;

const NS_PER_MS: u64 = 1_000_000;
/// Longest refill time in nanoseconds, 73 years. It keeps every product below 2^127: a bucket holds at most 2^125
/// shares, and a request overdraws it by no more.
const MAX_REFILL_NS: u64 = 1 << 61;

/// A moment, in nanoseconds of the monotonic clock.
pub(crate) type Nanos = u64;

#[derive(Debug)]
pub(super) struct TokenBucket {
    /// Tokens that it holds; not 0.
    size: u64,
    /// Nanoseconds in which it fills; not 0, at most [`MAX_REFILL_NS`].
    refill_ns: u64,
    /// Tokens that are spent before the bucket is drawn on.
    burst: u64,
    /// Shares in the bucket. Below 0 after a request that was larger than the bucket.
    level: i128,
    updated: Nanos,
    /// A request waits for this bucket. What comes in while the device is late to hear that there is enough is not lost,
    /// up to another bucket: the rate would fall with every wake-up that is late.
    awaited: bool,
}

impl TokenBucket {
    /// A full bucket; none when `config` limits nothing.
    pub(super) fn new(config: &TokenBucketConfig, now: Nanos) -> Option<Self> {
        let TokenBucketConfig { size, refill_time, one_time_burst } = *config;
        if size == 0 || refill_time == 0 {
            return None;
        }
        let refill_ns = refill_time.saturating_mul(NS_PER_MS).min(MAX_REFILL_NS);
        let burst = one_time_burst.unwrap_or(0);
        Some(Self { size, refill_ns, burst, level: shares(size, refill_ns), updated: now, awaited: false })
    }

    /// Adds what came in since the last call. A clock that went back adds nothing.
    pub(super) fn refill(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.updated).min(2 * MAX_REFILL_NS);
        self.updated = now;
        let full = shares(self.size, self.refill_ns);
        let most = if self.awaited { 2 * full } else { full };
        let filled = self.level.saturating_add(shares(self.size, elapsed)).min(most);
        self.level = self.level.max(filled);
    }

    /// Nanoseconds from the last refill until `tokens` can be taken; 0 when they can be now, else somebody waits for them. A
    /// request that is larger than the bucket waits for a full one.
    pub(super) fn wait(&mut self, tokens: u64) -> u64 {
        let needed = shares(tokens.saturating_sub(self.burst).min(self.size), self.refill_ns);
        let missing = needed.saturating_sub(self.level);
        self.awaited = missing > 0;
        let Ok(missing) = u128::try_from(missing) else { return 0 };
        u64::try_from(missing.div_ceil(u128::from(self.size))).unwrap_or(u64::MAX)
    }

    /// Nobody waits any more.
    pub(super) fn forget_wait(&mut self) {
        self.awaited = false;
    }

    /// Takes `tokens`, which must not have to [`wait`](Self::wait).
    pub(super) fn take(&mut self, tokens: u64) {
        let from_burst = tokens.min(self.burst);
        self.burst -= from_burst;
        self.level = self.level.saturating_sub(shares(tokens - from_burst, self.refill_ns));
    }

    /// Gives `tokens` back that were taken for nothing.
    pub(super) fn refund(&mut self, tokens: u64) {
        let full = shares(self.size, self.refill_ns);
        let refunded = self.level.saturating_add(shares(tokens, self.refill_ns)).min(full);
        self.level = self.level.max(refunded);
    }
}

/// `a` times `b`, of which one is at most 2^62.
fn shares(a: u64, b: u64) -> i128 {
    i128::from(a) * i128::from(b)
}
