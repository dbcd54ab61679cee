//! Why a network device cannot be, and the mend.

use std::io;

use super::config::NetConfigError;
use super::publish::Publish;
use super::tap::TapError;

/// Why a network device cannot be.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] NetConfigError),
    /// The tap cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// There is no passt.
    #[error(
        "a network without root rights needs passt, which is not on PATH; install it (Debian: apt install passt), or use a tap"
    )]
    NoPasst,
    /// A port of the host is not to be had.
    #[error("cannot publish {publish}: {why}")]
    Port {
        /// What was asked for.
        publish: Publish,
        /// What is in the way.
        why: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// vhost-net and no tap.
    #[error("vhost=on needs a tap")]
    VhostWithoutTap,
    /// There is no vhost-net.
    #[error(
        "vhost=on needs /dev/vhost-net: load it (sudo modprobe vhost_net) and give yourself rights to it, or leave vhost out"
    )]
    Vhost(#[source] io::Error),
    /// What moves its frames cannot be started.
    #[error("cannot start passt")]
    Backend(#[source] io::Error),
    /// The host has no descriptor left.
    #[error("cannot make a descriptor")]
    Host(#[source] io::Error),
}

impl NetError {
    /// The port that `publish` wants is not to be had.
    pub(super) fn port(publish: Publish, source: io::Error) -> Self {
        let (port, protocol) = (publish.host_port, publish.protocol);
        let why = match source.kind() {
            io::ErrorKind::AddrInUse => format!("{protocol} port {port} is taken on this host; take another"),
            io::ErrorKind::PermissionDenied => {
                format!("{protocol} port {port} of this host is for root; take one from 1024 up")
            }
            _ => format!("{protocol} port {port} of this host cannot be had"),
        };
        Self::Port { publish, why, source }
    }
}
