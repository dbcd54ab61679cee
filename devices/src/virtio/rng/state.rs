//! What a snapshot keeps of the device: nothing. A limiter begins with full buckets in a restored one.

use serde::{Deserialize, Serialize};

/// The device's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngStateV1 {}
