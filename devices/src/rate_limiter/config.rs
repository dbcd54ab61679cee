//! Rate limiters as a configuration names them.

use serde::{Deserialize, Serialize};

/// A token bucket: `size` tokens, refilled in full every `refill_time` milliseconds. It is full at first. One whose size
/// or refill time is 0 limits nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucketConfig {
    /// Tokens that the bucket holds.
    pub size: u64,
    /// Milliseconds in which an empty bucket fills.
    pub refill_time: u64,
    /// Tokens that can be spent once, before the bucket itself is drawn on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
}

/// Limits on bytes and on operations per time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiterConfig {
    /// Tokens are bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucketConfig>,
    /// Tokens are operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucketConfig>,
}

/// Parts of a second's tokens that the bucket of [`TokenBucketConfig::per_second`] holds: after each silence, a bucket of
/// a whole second would let as much through at once.
const PARTS_OF_A_SECOND: u64 = 10;
const MS_PER_SECOND: u128 = 1000;

impl TokenBucketConfig {
    /// The bucket that lets `rate` tokens pass per second, smoothly: it holds a tenth of them, and at least one. The rate
    /// is met within 1 %, as refill times are whole milliseconds; one of 0 limits nothing.
    pub fn per_second(rate: u64) -> Self {
        if rate == 0 {
            return Self { size: 0, refill_time: 0, one_time_burst: None };
        }
        let size = rate.saturating_add(PARTS_OF_A_SECOND / 2) / PARTS_OF_A_SECOND;
        let size = size.max(1);
        let refill_time = (u128::from(size) * MS_PER_SECOND + u128::from(rate / 2)) / u128::from(rate);
        Self { size, refill_time: u64::try_from(refill_time).unwrap_or(u64::MAX), one_time_burst: None }
    }
}

impl RateLimiterConfig {
    /// These limits after a change by `update`: a bucket that it names takes the place of the old one, one that it does not
    /// name stays, and one whose size or refill time is 0 goes.
    #[must_use]
    pub fn updated(self, update: &Self) -> Self {
        let bucket = |old, new: &Option<TokenBucketConfig>| match new {
            None => old,
            Some(new) => Some(new.clone()).filter(|new| new.size != 0 && new.refill_time != 0),
        };
        Self { bandwidth: bucket(self.bandwidth, &update.bandwidth), ops: bucket(self.ops, &update.ops) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_replaces_what_it_names_and_removes_what_it_sets_to_nothing() {
        let bucket = |size| Some(TokenBucketConfig { size, refill_time: 100, one_time_burst: None });
        let limits = RateLimiterConfig { bandwidth: bucket(1), ops: bucket(2) };
        let update = RateLimiterConfig { bandwidth: bucket(3), ops: None };
        let updated = limits.updated(&update);
        assert_eq!(updated, RateLimiterConfig { bandwidth: bucket(3), ops: bucket(2) });
        let removed = updated.updated(&RateLimiterConfig { bandwidth: bucket(0), ops: bucket(0) });
        assert_eq!(removed, RateLimiterConfig::default());
    }
}
