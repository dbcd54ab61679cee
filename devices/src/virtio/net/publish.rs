//! Ports of the host that lead to ports of the guest.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a published port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One published port, written `[ADDR:]HOST:GUEST[/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publish {
    /// The host's address that is listened on; all of them when there is none.
    pub address: Option<IpAddr>,
    /// Port on the host, not 0.
    pub host_port: u16,
    /// Port in the guest, not 0.
    pub guest_port: u16,
    /// What is forwarded.
    pub protocol: Protocol,
}

/// Not a port to publish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot publish '{text}': {reason}; write HOST:GUEST, ADDR:HOST:GUEST or [ADDR6]:HOST:GUEST, and /udp behind it for UDP"
)]
pub struct PublishError {
    text: String,
    reason: &'static str,
}

impl Publish {
    /// Whether the host has the port to give, found out by taking it and giving it back.
    ///
    /// # Errors
    /// What the host said: the port is taken, or only root may have it, or the address is not the host's.
    pub fn check(&self) -> io::Result<()> {
        match self.address {
            Some(address) => self.bind(address),
            // One socket for IPv6 and IPv4, or IPv4 alone on a host without IPv6.
            None => match self.bind(Ipv6Addr::UNSPECIFIED.into()) {
                Err(error) if no_such_family(&error) => self.bind(Ipv4Addr::UNSPECIFIED.into()),
                result => result,
            },
        }
    }

    fn bind(&self, address: IpAddr) -> io::Result<()> {
        let address = SocketAddr::new(address, self.host_port);
        match self.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(drop),
            Protocol::Udp => UdpSocket::bind(address).map(drop),
        }
    }
}

fn no_such_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let wrong = |reason| PublishError { text: text.to_owned(), reason };
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(wrong("the protocol is neither tcp nor udp")),
        };
        let (rest, guest) = ports.rsplit_once(':').ok_or_else(|| wrong("the guest's port is missing"))?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => (Some(address), host),
            None => (None, rest),
        };
        let port = |digits: &str| {
            let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|port: &u16| decimal && *port != 0)
        };
        let port = |digits| port(digits).ok_or_else(|| wrong("a port is a number from 1 to 65535"));
        let (host_port, guest_port) = (port(host)?, port(guest)?);
        let address = match address {
            None => None,
            Some(address) => {
                let bracketed = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
                let parsed = match bracketed {
                    Some(address) => address.parse::<Ipv6Addr>().map(IpAddr::V6),
                    None => address.parse::<Ipv4Addr>().map(IpAddr::V4),
                };
                Some(parsed.map_err(|_| wrong("the address is neither IPv4 nor [IPv6]"))?)
            }
        };
        Ok(Self { address, host_port, guest_port, protocol })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(formatter, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(formatter, "[{address}]:")?,
        }
        write!(formatter, "{}:{}", self.host_port, self.guest_port)?;
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => formatter.write_str("/udp"),
        }
    }
}

impl Serialize for Publish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Publish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
