//! What a snapshot keeps of the socket device.
//!
//! Connections end at the host's sockets, which a snapshot cannot have: a VM that goes on after it keeps them, and one that
//! is restored has none. So what is kept is only what its guest has to be told: which connections it takes to be there.

use serde::{Deserialize, Serialize};

/// The device's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockStateV1 {
    /// The guest's driver has set DRIVER_OK.
    pub active: bool,
    /// Context id that the guest has.
    pub guest_cid: u64,
    /// Where the search for a free host port begins.
    pub next_port: u32,
    /// Connections that a reset of the transport ends in the guest.
    pub connections: Vec<PortsV1>,
    /// RSTs that the guest has yet to get. With the connections they are 1279 at most.
    pub resets: Vec<ResetV1>,
}

/// The ports of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsV1 {
    /// The host's.
    pub host: u32,
    /// The guest's.
    pub guest: u32,
}

/// A RST (virtio 1.3, 5.10.6), as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetV1 {
    /// Context id that it comes from.
    pub src_cid: u64,
    /// Context id that it goes to.
    pub dst_cid: u64,
    /// Port that it comes from.
    pub src_port: u32,
    /// Port that it goes to.
    pub dst_port: u32,
    /// Type of the socket.
    pub socket_type: u16,
}
