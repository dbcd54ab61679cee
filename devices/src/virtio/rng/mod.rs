//! Entropy device (virtio 1.3, 5.4): fills buffers with the host's random bytes.

mod config;
mod device;
mod state;
#[cfg(test)]
mod tests;

pub use config::EntropyConfig;
pub use device::{MAX_BYTES_PER_REQUEST, RngDevice};
pub use state::RngStateV1;
