//! `serial`: where what the guest writes to its serial port goes.

use std::path::PathBuf;

use devices::rate_limiter::TokenBucketConfig;
use serde::{Deserialize, Serialize};

/// `serial`: the serial port's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialConfig {
    /// File or named pipe that the output is written to; absent: standard output. There is no input then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_out_path: Option<PathBuf>,
    /// Bytes of output in a time; what is beyond is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<TokenBucketConfig>,
}
