//! PUT `/entropy`.

use serde::{Deserialize, Serialize};

use crate::rate_limiter::RateLimiterConfig;

/// The configuration of an entropy device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropyConfig {
    /// Limits how much the guest is given: bytes, and requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterConfig>,
}
