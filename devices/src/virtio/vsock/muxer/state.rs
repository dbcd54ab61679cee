//! What a guest has to be told that goes on without its connections.

use super::from_host::{FIRST_PORT, LAST_PORT};
use super::{MAX_RESETS, Muxer};
use crate::state::StateError;
use crate::virtio::vsock::config::{MAX_GUEST_CID, MIN_GUEST_CID};
use crate::virtio::vsock::connection::Awareness;
use crate::virtio::vsock::packet::{Header, Ports};
use crate::virtio::vsock::state::{PortsV1, ResetV1, VsockStateV1};
use crate::virtio::vsock::table::MAX_CONNECTIONS;

/// Connections and RSTs that a state can have together. RSTs alone can be as many where a guest did not take the event by
/// which its connections ended; until it has taken them there are no connections.
const MAX_TOLD: usize = MAX_RESETS + MAX_CONNECTIONS;

impl Muxer {
    /// The state of all connections.
    pub(in super::super) fn save(&self, active: bool) -> VsockStateV1 {
        let guest_cid = self.guest_cid;
        let mut resets: Vec<_> = self.resets.iter().map(ResetV1::from).collect();
        let mut connections = Vec::new();
        for connection in self.table.indices().into_iter().filter_map(|index| self.table.get(index)) {
            let Ports { host, guest } = connection.ports();
            match connection.awareness() {
                Awareness::None => {}
                Awareness::Connected => connections.push(PortsV1 { host, guest }),
                Awareness::AwaitsAnswer => {
                    resets.push(ResetV1::from(&Header::reset_of(connection.ports(), guest_cid)));
                }
            }
        }
        VsockStateV1 { active, guest_cid, next_port: self.next_port, connections, resets }
    }

    /// Takes the state of a device that was saved, before a driver is there.
    ///
    /// # Errors
    /// When no device can be in it.
    pub(in super::super) fn restore(&mut self, state: &VsockStateV1) -> Result<(), StateError> {
        let VsockStateV1 { active, guest_cid, next_port, connections, resets } = state;
        if !(MIN_GUEST_CID..=MAX_GUEST_CID).contains(guest_cid) {
            return Err(StateError::new(format!("no guest has the context id {guest_cid}")));
        }
        if !(FIRST_PORT..=LAST_PORT).contains(next_port) {
            let message = format!("port {next_port}: the host's are {FIRST_PORT} to {LAST_PORT}");
            return Err(StateError::new(message));
        }
        let (count, told) = (connections.len(), resets.len().saturating_add(connections.len()));
        if count > MAX_CONNECTIONS || told > MAX_TOLD || !active && told > 0 {
            let driver = if *active { "" } else { " without a driver" };
            return Err(StateError::new(format!(
                "{count} connections and {} RSTs{driver}: a guest has at most {MAX_CONNECTIONS}, and {MAX_TOLD} of both",
                resets.len()
            )));
        }
        self.next_port = *next_port;
        self.former_cid = (*guest_cid != self.guest_cid).then_some(*guest_cid);
        self.resets = resets.iter().map(Header::from).collect();
        Ok(())
    }

    /// Tells the guest of the end of `connections`, each by a RST.
    pub(in super::super) fn reset_each(&mut self, connections: &[PortsV1]) {
        let guest_cid = self.former_cid.unwrap_or(self.guest_cid);
        let ports = connections.iter().map(|PortsV1 { host, guest }| Ports { host: *host, guest: *guest });
        self.resets.extend(ports.map(|ports| Header::reset_of(ports, guest_cid)));
    }
}

impl From<&Header> for ResetV1 {
    fn from(header: &Header) -> Self {
        let Header { src_cid, dst_cid, src_port, dst_port, socket_type, .. } = *header;
        Self { src_cid, dst_cid, src_port, dst_port, socket_type }
    }
}

impl From<&ResetV1> for Header {
    fn from(reset: &ResetV1) -> Self {
        let ResetV1 { src_cid, dst_cid, src_port, dst_port, socket_type } = *reset;
        Self::rst(src_cid, dst_cid, src_port, dst_port, socket_type)
    }
}
