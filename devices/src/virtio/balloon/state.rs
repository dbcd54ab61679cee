//! What a snapshot keeps of the device.

use serde::{Deserialize, Serialize};

/// The device's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStateV1 {}
