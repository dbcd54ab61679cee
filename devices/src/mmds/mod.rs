//! The metadata service: a JSON document of the host that the guest reads over HTTP at a link-local address, 169.254.169.254
//! unless told otherwise, as Firecracker's MMDS and the metadata services of clouds have it.
//!
//! | file | what |
//! | --- | --- |
//! | `config` | PUT `/mmds/config` |
//! | `store` | the document |
//! | `token` | session tokens of version 2 |
//! | `http` | from a request to its answer |
//! | `connection` | one connection of the guest |
//! | `frame` | which frames are for the service |
//! | `stack` | TCP/IP (smoltcp) over frames |
//!
//! There is no network behind it: a network device takes the frames out of what its guest sends, and puts the answers among
//! what it receives. The guest is alone with it, so whatever it does harms nobody else, and memory and time are bounded:
//! connections in number, requests in length, and both in time.

mod config;
mod connection;
mod frame;
#[cfg(any(test, feature = "test-harness"))]
mod frame_harness;
mod http;
mod stack;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod token;

use std::net::Ipv4Addr;
use std::sync::Arc;

pub use config::{DEFAULT_ADDRESS, MmdsConfig, MmdsConfigError, MmdsVersion};
pub(crate) use frame::HEAD_LEN;
#[cfg(any(test, feature = "test-harness"))]
pub use frame_harness::FrameHarness;
pub use stack::MAC_ADDRESS;
pub(crate) use stack::Stack;
pub use store::{DEFAULT_SIZE_LIMIT, MmdsStore, StoreError};

use crate::metrics::MmdsMetrics;
use token::Tokens;

/// The service of one VM, which all of its interfaces share.
pub struct Mmds {
    address: Ipv4Addr,
    version: MmdsVersion,
    imds_compat: bool,
    store: Arc<MmdsStore>,
    tokens: Tokens,
    metrics: Arc<MmdsMetrics>,
}

impl Mmds {
    /// A service as `config` has it, which gives out what is in `store`.
    pub fn new(config: &MmdsConfig, store: Arc<MmdsStore>) -> Self {
        Self {
            address: config.address(),
            version: config.version,
            imds_compat: config.imds_compat,
            store,
            tokens: Tokens::default(),
            metrics: Arc::default(),
        }
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<MmdsMetrics> {
        self.metrics.clone()
    }

    /// Whether the frame that begins with `head` is for the service: IPv4 to its address, or ARP for it.
    pub(crate) fn is_addressed_by(&self, head: &[u8]) -> bool {
        frame::is_for(head, self.address)
    }
}
