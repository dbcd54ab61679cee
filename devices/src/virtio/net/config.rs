//! PUT `/network-interfaces/{id}`.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::mac::MacAddress;
use super::passt;
use super::publish::Publish;
use crate::rate_limiter::RateLimiterConfig;

/// Bytes that an interface's id may have.
const MAX_ID_LEN: usize = 64;
/// Bytes that the name of a network interface of the host may have (IFNAMSIZ, without the terminating zero).
const MAX_TAP_NAME_LEN: usize = libc::IFNAMSIZ - 1;
/// Smallest MTU: what IPv4 asks of every link (RFC 791), and of virtio (virtio 1.3, 5.1.4.1).
const MIN_MTU: u32 = 68;
/// Largest MTU (virtio 1.3, 5.1.4.1).
const MAX_MTU: u32 = 65535;
/// Largest MTU of passt, and the one that it is used with: with the Ethernet header it is just below 64 KiB.
pub const MAX_USER_MTU: u32 = 65520;

/// The configuration of a network interface: behind it is either a tap or passt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// Name of the interface in this configuration; the guest does not see it.
    pub iface_id: String,
    /// Tap on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_dev_name: Option<String>,
    /// The guest's MAC address; generated when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<MacAddress>,
    /// MTU that the guest is told, 68 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Limits what the guest receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiterConfig>,
    /// Limits what the guest sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiterConfig>,
    /// A network without root rights, by passt, in place of a tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserNetConfig>,
    /// vhost-net: the host's kernel moves the frames between tap and guest.
    #[serde(default)]
    pub vhost: bool,
}

/// A network that a process of the user makes: passt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserNetConfig {
    /// Ports of the host that lead to the guest.
    #[serde(default)]
    pub publish: Vec<Publish>,
    /// The guest reaches what listens on the host's loopback addresses, at the address of its gateway.
    #[serde(default)]
    pub host_loopback: bool,
}

impl UserNetConfig {
    /// The program that serves such an interface: passt, if it is on PATH.
    pub fn program() -> Option<PathBuf> {
        passt::program()
    }
}

/// Why an interface cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetConfigError {
    /// The id has characters or a length that an id cannot have.
    #[error("interface id {id:?} must have 1 to {MAX_ID_LEN} letters, digits, '_' or '-'")]
    BadId {
        /// The id.
        id: String,
    },
    /// Neither a tap nor passt, or both.
    #[error("interface {id}: one of host_dev_name (a tap) and user (passt) is needed, and not both")]
    NoBackend {
        /// The interface's id.
        id: String,
    },
    /// No network interface has such a name.
    #[error(
        "interface {id}: {name:?} cannot be the name of a tap: 1 to {MAX_TAP_NAME_LEN} characters, without white space, '/', ':' and '%'"
    )]
    BadTapName {
        /// The interface's id.
        id: String,
        /// The name.
        name: String,
    },
    /// MTU out of range.
    #[error("interface {id}: an MTU of {mtu}: {MIN_MTU} to {max} is possible")]
    Mtu {
        /// The interface's id.
        id: String,
        /// What was asked for.
        mtu: u32,
        /// The largest.
        max: u32,
    },
    /// One port of the host for two.
    #[error("interface {id}: {protocol} port {port} is published twice")]
    PublishedTwice {
        /// The interface's id.
        id: String,
        /// TCP or UDP.
        protocol: super::publish::Protocol,
        /// The port.
        port: u16,
    },
    /// vhost-net and what it cannot do.
    #[error(
        "interface {id}: vhost is for a tap (host_dev_name) without rate limiters: the host's kernel has none"
    )]
    Vhost {
        /// The interface's id.
        id: String,
    },
}

impl NetConfig {
    /// Checks what can be checked without the host.
    ///
    /// # Errors
    /// The first thing that is wrong, with its value and what is possible.
    pub fn validate(&self) -> Result<(), NetConfigError> {
        let id = || self.iface_id.clone();
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=MAX_ID_LEN).contains(&self.iface_id.len()) || !self.iface_id.bytes().all(valid) {
            return Err(NetConfigError::BadId { id: id() });
        }
        let max = match (&self.host_dev_name, &self.user) {
            (Some(name), None) => {
                if !valid_tap_name(name) {
                    return Err(NetConfigError::BadTapName { id: id(), name: name.clone() });
                }
                MAX_MTU
            }
            (None, Some(user)) => {
                self.validate_ports(&user.publish)?;
                MAX_USER_MTU
            }
            (None, None) | (Some(_), Some(_)) => return Err(NetConfigError::NoBackend { id: id() }),
        };
        if let Some(mtu) = self.mtu.filter(|mtu| !(MIN_MTU..=max).contains(mtu)) {
            return Err(NetConfigError::Mtu { id: id(), mtu, max });
        }
        let limited = self.rx_rate_limiter.is_some() || self.tx_rate_limiter.is_some();
        if self.vhost && (limited || self.host_dev_name.is_none()) {
            return Err(NetConfigError::Vhost { id: id() });
        }
        Ok(())
    }

    fn validate_ports(&self, publish: &[Publish]) -> Result<(), NetConfigError> {
        let mut seen = HashSet::new();
        for port in publish {
            if !seen.insert((port.address, port.host_port, port.protocol)) {
                return Err(NetConfigError::PublishedTwice {
                    id: self.iface_id.clone(),
                    protocol: port.protocol,
                    port: port.host_port,
                });
            }
        }
        Ok(())
    }
}

/// What the kernel takes as a name (`dev_valid_name`), without the patterns that it would fill in itself.
fn valid_tap_name(name: &str) -> bool {
    let valid = |byte: u8| !byte.is_ascii_whitespace() && !byte.is_ascii_control() && !b"/:%".contains(&byte);
    (1..=MAX_TAP_NAME_LEN).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(valid)
}
