//! Socket device (virtio 1.3, 5.10): streams between programs in the guest, which use AF_VSOCK, and programs on the
//! host, which use unix sockets.
//!
//! - A host program connects to the device's socket, writes `CONNECT <port>\n`, and reads `OK <its port>\n` once a
//!   program in the guest has accepted. The connection ends at once when nobody in the guest listens there.
//! - A guest that connects to port P of the host (context id 2) reaches who listens at the device's path with `_P`
//!   behind it.
//!
//! Data is read from the host's socket straight into the guest's buffers, and written from them. What a host program
//! does not take is kept, at most as much as its connection gave credit for.
//!
//! `connection` is one stream and knows the protocol, `muxer` knows all of them and is between them and the queues,
//! `clients` is the way in for host programs. Packets are taken apart here and not by the `virtio-vsock`
//! crate, which wants header and data in one contiguous descriptor each: a driver may split them anywhere.

mod backlog;
mod clients;
mod config;
mod connection;
mod device;
mod muxer;
mod packet;
mod rx_queue;
mod state;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub use config::{MAX_GUEST_CID, MAX_SOCKET_PATH_LEN, MIN_GUEST_CID, VsockConfig, VsockConfigError};
pub use device::{VsockDevice, VsockError};
pub use state::{PortsV1, ResetV1, VsockStateV1};
pub use table::MAX_CONNECTIONS;
