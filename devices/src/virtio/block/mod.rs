//! Block device (virtio 1.3, 5.2) on a raw disk image.
//!
//! | file | what |
//! | --- | --- |
//! | `config` | PUT `/drives/{id}` |
//! | `image` | the file on the host: opening, locking, discarding, zeroing |
//! | `layout` | the device's configuration space |
//! | `request` | one request: from a descriptor chain to what is to be done |
//! | `engine` | how data gets from file to guest and back: io_uring, or one call after the other |
//! | `device` | the device: chains in, completions out |

mod config;
mod device;
mod engine;
mod image;
mod layout;
mod request;
#[cfg(test)]
mod tests;

pub use config::{BlockConfig, BlockConfigError, CacheType, IoEngine};
pub use device::{BlockDevice, QUEUE_SIZE};
pub use image::BlockError;
pub use request::SECTOR_SIZE;
