//! PUT `/mmds/config`.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::virtio::net::NetConfig;

/// Where the service is when nothing is said.
pub const DEFAULT_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How the guest asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmdsVersion {
    /// By plain GET requests; a token is possible and not looked at.
    #[default]
    V1,
    /// With a token, which it gets by a PUT request first.
    V2,
}

/// The configuration of the metadata service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsConfig {
    /// Ids of the network interfaces by which the guest reaches it; one at least.
    pub network_interfaces: Vec<String>,
    /// How the guest asks.
    #[serde(default)]
    pub version: MmdsVersion,
    /// Its address, of 169.254.1.0 to 169.254.254.255; [`DEFAULT_ADDRESS`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<Ipv4Addr>,
    /// Always answers in the format of EC2's service, whatever the guest says that it accepts.
    #[serde(default)]
    pub imds_compat: bool,
}

/// Why the service cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MmdsConfigError {
    /// There is no way to it.
    #[error(
        "mmds-config.network_interfaces is empty: name the network interface by which the guest reaches it"
    )]
    NoInterface,
    /// There is no such interface.
    #[error("mmds-config.network_interfaces: there is no network interface \"{id}\"; there are: {known}")]
    UnknownInterface {
        /// The id.
        id: String,
        /// Those that there are.
        known: String,
    },
    /// The host's kernel moves the interface's frames.
    #[error(
        "mmds-config.network_interfaces: \"{id}\" has vhost, and its frames do not come by here; turn vhost off, or name another interface"
    )]
    Vhost {
        /// The interface's id.
        id: String,
    },
    /// The address is not link-local, or one of those that RFC 3927 reserves.
    #[error("mmds-config.ipv4_address: {address} is not between 169.254.1.0 and 169.254.254.255")]
    Address {
        /// What was given.
        address: Ipv4Addr,
    },
}

impl MmdsConfig {
    /// The address of the service.
    pub fn address(&self) -> Ipv4Addr {
        self.ipv4_address.unwrap_or(DEFAULT_ADDRESS)
    }

    /// Checks it against the VM's `interfaces`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its value and what is possible.
    pub fn validate(&self, interfaces: &[NetConfig]) -> Result<(), MmdsConfigError> {
        let address = self.address();
        match address.octets() {
            [169, 254, 1..=254, _] => {}
            _ => return Err(MmdsConfigError::Address { address }),
        }
        if self.network_interfaces.is_empty() {
            return Err(MmdsConfigError::NoInterface);
        }
        for id in &self.network_interfaces {
            match interfaces.iter().find(|interface| interface.iface_id == *id) {
                Some(interface) if interface.vhost => return Err(MmdsConfigError::Vhost { id: id.clone() }),
                Some(_) => {}
                None => {
                    let known: Vec<&str> =
                        interfaces.iter().map(|interface| interface.iface_id.as_str()).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    return Err(MmdsConfigError::UnknownInterface { id: id.clone(), known });
                }
            }
        }
        Ok(())
    }
}
