//! What a snapshot keeps of the balloon.
//!
//! Statistics are not among it: the driver's buffer for them counts as not taken, and has the last ones in it.

use serde::{Deserialize, Serialize};

/// The device's own state. All of it is the driver's to write, so there is nothing that it cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStateV1 {
    /// Pages of 4 KiB that the driver was asked to have in the balloon. What a restored one is asked for is in the
    /// configuration.
    pub num_pages: u32,
    /// Pages of 4 KiB that the driver has in it.
    pub actual: u32,
    /// What the driver fills free pages with.
    pub poison_val: u32,
}
