//! Rate limiters: token buckets for bytes and for operations, and a timer that says when there are enough of both.
//!
//! A device asks [`RateLimiter::take`] before each operation. When that says no, it leaves the operation where it is (in
//! the ring, in the socket), stops looking for more, and goes on when the limiter's descriptor becomes readable. It
//! gives the descriptor to the event loop as `BackendFd::level`, calls [`RateLimiter::wake`] for its event, and
//! [`RateLimiter::disarm`] when it is deactivated.
//!
//! An operation larger than the bucket passes when the bucket is full, and what it took too much is paid off by the
//! time that the next one waits: the average holds whatever the sizes. The clock is CLOCK_MONOTONIC.

mod bucket;
mod budget;
mod config;
#[cfg(test)]
mod tests;
pub(crate) mod timer;

use std::io;
use std::os::fd::RawFd;

use crate::clock;
use bucket::{Nanos, TokenBucket};
pub use budget::Budget;
pub use config::{RateLimiterConfig, TokenBucketConfig};
use timer::Timer;

/// Shortest time that the timer is armed for, in nanoseconds: a device wakes up at most 1000 times a second, and then
/// serves what a millisecond has let through. No bucket fills in less, so nothing of it is lost.
const MIN_WAIT: Nanos = 1_000_000;

/// Limits bytes and operations per time.
#[derive(Debug)]
pub struct RateLimiter {
    bandwidth: Option<TokenBucket>,
    ops: Option<TokenBucket>,
    timer: Timer,
    /// When the timer fires for an operation that waits.
    blocked_until: Option<Nanos>,
}

impl RateLimiter {
    /// A limiter with full buckets. A bucket that is absent, or whose size or refill time is 0, limits nothing.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn new(config: &RateLimiterConfig) -> io::Result<Self> {
        let mut limiter = Self { bandwidth: None, ops: None, timer: Timer::new()?, blocked_until: None };
        limiter.update(config);
        Ok(limiter)
    }

    /// A descriptor that is readable when what was blocked may go on. It stays the same.
    pub fn fd(&self) -> RawFd {
        self.timer.fd()
    }

    /// Takes the tokens of one operation of `bytes`. False when there are not enough of them: the limiter is blocked
    /// until its descriptor becomes readable, and the operation must be asked for again then.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> bool {
        if self.bandwidth.is_none() && self.ops.is_none() {
            return true;
        }
        self.take_at(clock::monotonic(), bytes)
    }

    fn take_at(&mut self, now: Nanos, bytes: u64) -> bool {
        if self.is_blocked() {
            return false;
        }
        let mut wait = 0;
        for (bucket, tokens) in self.buckets(bytes) {
            bucket.refill(now);
            wait = wait.max(bucket.wait(tokens));
        }
        if wait > 0 {
            let until = now.saturating_add(wait.max(MIN_WAIT));
            self.blocked_until = Some(until);
            self.timer.arm(until);
            return false;
        }
        self.buckets(bytes).for_each(|(bucket, tokens)| bucket.take(tokens));
        true
    }

    /// The buckets, each with what an operation of `bytes` takes from it.
    fn buckets(&mut self, bytes: u64) -> impl Iterator<Item = (&mut TokenBucket, u64)> {
        self.ops
            .iter_mut()
            .map(|bucket| (bucket, 1))
            .chain(self.bandwidth.iter_mut().map(move |bucket| (bucket, bytes)))
    }

    /// Gives the tokens of an operation of `bytes` back, which did not take place.
    pub fn refund(&mut self, bytes: u64) {
        self.buckets(bytes).for_each(|(bucket, tokens)| bucket.refund(tokens));
    }

    /// The descriptor is readable: empties it, and lets operations through again.
    pub fn wake(&mut self) {
        if self.is_blocked() {
            self.wake_at(clock::monotonic());
        }
        self.timer.empty();
    }

    fn wake_at(&mut self, now: Nanos) {
        self.blocked_until = None;
        for (bucket, _) in self.buckets(0) {
            bucket.refill(now);
            bucket.forget_wait();
        }
    }

    /// Whether an operation waits for the descriptor to become readable.
    pub fn is_blocked(&self) -> bool {
        self.blocked_until.is_some()
    }

    /// The device stops: nothing waits any more, and the descriptor is not readable and does not become so. Tokens stay
    /// spent, so that no driver escapes its limits by a reset.
    pub fn disarm(&mut self) {
        self.blocked_until = None;
        self.buckets(0).for_each(|(bucket, _)| bucket.forget_wait());
        self.timer.disarm();
    }

    /// Replaces the buckets that `config` names by new, full ones; one that is absent stays as it is, and one whose size or
    /// refill time is 0 goes. Nothing waits after this: whoever was blocked must ask again.
    pub fn update(&mut self, config: &RateLimiterConfig) {
        self.update_at(clock::monotonic(), config);
    }

    fn update_at(&mut self, now: Nanos, config: &RateLimiterConfig) {
        let RateLimiterConfig { bandwidth, ops } = config;
        for (bucket, config) in [(&mut self.bandwidth, bandwidth), (&mut self.ops, ops)] {
            if let Some(config) = config {
                *bucket = TokenBucket::new(config, now);
            }
        }
        self.disarm();
    }
}
