//! Rate limiters, as a configuration names them. Nothing limits yet: a device that is given one refuses it by name.

use serde::{Deserialize, Serialize};

/// A token bucket: `size` tokens, refilled in full every `refill_time` milliseconds.
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
