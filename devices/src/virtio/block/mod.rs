//! Block device (virtio 1.3, 5.2) on a raw disk image.
//!
//! | file | what |
//! | --- | --- |
//! | `config` | PUT `/drives/{id}` |
//! | `image`, `error` | the file on the host: opening, locking, discarding, zeroing; why it cannot be a disk |
//! | `direct` | direct I/O: what it wants, and a buffer for what does not fit |
//! | `layout` | the device's configuration space |
//! | `request` | one request: from a descriptor chain to what is to be done |
//! | `engine` | how data gets from file to guest and back: io_uring, or one call after the other |
//! | `device` | the device, from its opening to its end |
//! | `serve` | what it does when it is woken up: chains in, completions out |
//! | `live` | what changes while the guest runs: the disk, the limits |

mod config;
mod device;
mod direct;
mod engine;
mod error;
mod image;
mod layout;
mod live;
mod request;
mod serve;
mod state;
#[cfg(test)]
mod tests;

pub use config::{BlockConfig, BlockConfigError, CacheType, IoEngine};
pub use device::{BlockDevice, QUEUE_SIZE};
pub use error::BlockError;
pub use request::SECTOR_SIZE;
pub use state::BlockStateV1;
