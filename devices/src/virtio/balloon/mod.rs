//! Memory balloon device (virtio 1.3, 5.5): the guest gives memory up, and the host gets it.
//!
//! The balloon has a target. The driver takes pages from its own kernel until the balloon has that many and names
//! them in the inflate queue; the pages' contents are dropped there and then, and the host has them for others. A page
//! that the guest takes out of the balloon again, or touches without asking, is a new page of zeroes: nothing has to
//! be done for it.
//!
//! Two more things come with the device. The guest can report runs of pages that are free for the moment, without a
//! balloon (free page reporting): they are dropped in the same way. And it tells how its memory is used, as often as
//! it is asked.
//!
//! Whatever the guest names is its own to lose. A page outside of its memory, named twice, or one too many, is counted
//! and ignored.

mod config;
mod device;
mod discard;
mod layout;
mod ranges;
mod replaced;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

pub use config::{BalloonConfig, BalloonConfigError};
pub use device::{BalloonDevice, BalloonError, MAX_PAGES_PER_CHAIN, MAX_REPORTED_BYTES_PER_CHAIN};
pub use state::BalloonStateV1;
pub use statistics::BalloonStatistics;

/// Bytes of a page in every field and list of the device, whatever the guest's own page size is (5.5.6).
pub const PAGE_SIZE: u64 = 4096;
/// Pages in a mebibyte.
const PAGES_PER_MIB: u32 = 256;
