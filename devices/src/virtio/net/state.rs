//! What a snapshot keeps of an interface: what the guest knows of it.
//!
//! Frames that are on their way are not kept, as on any network; rate limiters begin with full buckets in a restored
//! device, and a connection to the metadata service is reset when the guest uses it.

use serde::{Deserialize, Serialize};

use super::device::NetDevice;
use super::layout::ConfigSpace;
use super::mac::MacAddress;
use super::vhost::VhostNetDevice;
use crate::state::StateError;

/// The state of a device that rvmm serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStateV1 {
    /// The guest's MAC address, given or generated.
    pub mac: [u8; 6],
    /// The link was up, as far as the guest knows.
    pub link_up: bool,
    /// The MTU that the guest was told; 0 for none.
    pub mtu: u16,
}

/// The state of a device of vhost-net.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostNetStateV1 {
    /// The guest's MAC address, given or generated.
    pub mac: [u8; 6],
    /// The MTU that the guest was told; 0 for none.
    pub mtu: u16,
}

impl ConfigSpace {
    /// Takes over what the guest knows. An address that the configuration names stays: it is the same, or a new one that
    /// was asked for.
    fn take_over(&mut self, mac: [u8; 6], mac_given: bool, mtu: u16) -> Result<(), StateError> {
        let mac = MacAddress::try_from(mac).map_err(|error| StateError::new(error.to_string()))?;
        if mtu != self.mtu {
            return Err(StateError::new(format!(
                "the guest was told of an MTU of {mtu} (0: none), and the configuration has {}",
                self.mtu
            )));
        }
        if !mac_given {
            self.mac = mac;
        }
        Ok(())
    }
}

impl NetDevice {
    pub(super) fn saved(&self) -> NetStateV1 {
        let Self {
            config_space: ConfigSpace { mac, link_up, mtu },
            // The configuration's, or the host's.
            id: _,
            backend: _,
            detour: _,
            features: _,
            mac_given: _,
            receive_limiter: _,
            transmit_limiter: _,
            metrics: _,
            link_news,
            // What is on its way is lost, and the queues are saved elsewhere.
            active: _,
        } = self;
        NetStateV1 { mac: mac.bytes(), link_up: *link_up && !link_news, mtu: *mtu }
    }

    pub(super) fn take_over(&mut self, state: &NetStateV1) -> Result<(), StateError> {
        let NetStateV1 { mac, link_up, mtu } = *state;
        self.config_space.take_over(mac, self.mac_given, mtu)?;
        // There is a backend again: the guest, who knows of none, is told.
        self.link_news = !link_up;
        Ok(())
    }
}

impl VhostNetDevice {
    pub(super) fn take_over(&mut self, state: &VhostNetStateV1) -> Result<(), StateError> {
        let VhostNetStateV1 { mac, mtu } = *state;
        self.config_space.take_over(mac, self.mac_given, mtu)
    }
}
