//! PUT `/balloon`.

use serde::{Deserialize, Serialize};

use super::PAGES_PER_MIB;

/// The configuration of a balloon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonConfig {
    /// Target size in MiB: how much memory the guest is asked to give up.
    pub amount_mib: u32,
    /// The guest takes memory back from the balloon before it kills a process for want of memory.
    pub deflate_on_oom: bool,
    /// Seconds from one statistics of the guest to the next; 0 for none.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// The guest names its free pages when asked to. Not supported yet.
    #[serde(default)]
    pub free_page_hinting: bool,
    /// The guest names runs of pages that it has freed, and the host takes them until the guest uses them again.
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// Why a balloon cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BalloonConfigError {
    /// More than the guest has.
    #[error("a balloon of {amount_mib} MiB: the guest has {memory_mib} MiB of memory in all")]
    TooLarge {
        /// What was asked for, in MiB.
        amount_mib: u32,
        /// What the guest has, in MiB.
        memory_mib: u64,
    },
    /// A field that nothing implements.
    #[error("balloon: {field} is not supported yet; leave it out")]
    Unsupported {
        /// Its name.
        field: &'static str,
    },
}

impl BalloonConfig {
    /// Checks the configuration for a guest with `memory_mib` MiB of memory.
    ///
    /// # Errors
    /// When the balloon is larger than that, or a field is set that is not supported yet.
    pub fn validate(&self, memory_mib: u64) -> Result<(), BalloonConfigError> {
        if self.free_page_hinting {
            return Err(BalloonConfigError::Unsupported { field: "free_page_hinting" });
        }
        pages(self.amount_mib, memory_mib).map(drop)
    }
}

/// The pages of a balloon of `amount_mib` MiB, in a guest with `memory_mib`.
pub(super) fn pages(amount_mib: u32, memory_mib: u64) -> Result<u32, BalloonConfigError> {
    let too_large = BalloonConfigError::TooLarge { amount_mib, memory_mib };
    if u64::from(amount_mib) > memory_mib {
        return Err(too_large);
    }
    // The configuration space counts up to 16 TiB.
    amount_mib.checked_mul(PAGES_PER_MIB).ok_or(too_large)
}
