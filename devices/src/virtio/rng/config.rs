//! PUT `/entropy`.

use serde::{Deserialize, Serialize};

use crate::rate_limiter::RateLimiterConfig;

/// The configuration of an entropy device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropyConfig {
    /// Limits how much the guest is given. Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterConfig>,
}

/// Why an entropy device cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntropyConfigError {
    /// A field that nothing implements.
    #[error("entropy: {field} is not supported yet")]
    Unsupported {
        /// Its name.
        field: &'static str,
    },
}

impl EntropyConfig {
    /// Checks what can be checked without the host.
    ///
    /// # Errors
    /// When a field is set that is not supported yet.
    pub fn validate(&self) -> Result<(), EntropyConfigError> {
        match self.rate_limiter {
            Some(_) => Err(EntropyConfigError::Unsupported { field: "rate_limiter" }),
            None => Ok(()),
        }
    }
}
