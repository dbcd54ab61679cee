//! A network of the benchmark's own: a bridge, behind it a server in a network namespace, and for each instance an end.
//!
//! Every path is alike: the instance's device (a veth, or a tap), the bridge, a veth, the server. A process of the host has the
//! bridge itself for its device. The addresses are of the range that RFC 2544 has set aside for benchmarks. No rule of a
//! firewall is made or changed.
//!
//! All interfaces and namespaces have the comparison's prefix in their names ([`remains::network_prefix`]), by which they are
//! removed, whoever does that.

mod server;
mod subnet;

use std::cell::Cell;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::unistd::geteuid;
use tempfile::NamedTempFile;

use crate::results::Kind;

use super::contender::{Attachment, Link};
use super::stage::{self, Stage};
use super::{helper, remains};

use server::Server;
use subnet::{Claim, Subnet};

/// The bridge's address on the link, which would be that of one of its ports otherwise and change with them.
pub(crate) const BRIDGE_MAC: &str = "02:72:62:00:00:01";

/// The most ends that a network has in its time: an interface's name has 15 bytes at most, and four are for the number.
const MOST_ENDS: u32 = 10_000;

/// A network, which is removed with this.
pub(crate) struct Network {
    /// That of the comparison.
    folder: PathBuf,
    /// How the names of all of it begin.
    prefix: String,
    subnet: Subnet,
    _claim: Claim,
    ends: Cell<u32>,
    server: Option<Server>,
}

/// An instance's end of a network, which is removed with this.
pub(crate) struct End {
    /// What the instance is told.
    pub(crate) link: Link,
    /// What removes it.
    removal: Vec<Command>,
}

impl Network {
    /// Makes the network and starts its server.
    ///
    /// # Errors
    /// There are no root rights or no `ip`, the kernel cannot do it, or a signal wants the benchmark to end.
    pub(crate) fn new(stage: &Stage) -> anyhow::Result<Self> {
        ensure!(geteuid().is_root(), "it takes root rights");
        ensure!(stage::on_path("ip").is_some(), "ip is not installed; Debian's package iproute2 brings it");
        let folder = stage.folder().to_owned();
        let prefix = remains::network_prefix(&folder).context("its interfaces would have no name")?;
        let (subnet, claim) = Subnet::claim()?;
        let mut network = Self { folder, prefix, subnet, _claim: claim, ends: Cell::new(0), server: None };
        let (bridge, host) = (network.name("b"), network.subnet.host());
        ip(
            &network.folder,
            None,
            &[
                format!(
                    "link add {bridge} address {BRIDGE_MAC} type bridge forward_delay 0 mcast_snooping 0"
                ),
                format!("address add {host}/{} dev {bridge}", subnet::PREFIX),
                format!("link set {bridge} up"),
            ],
        )?;
        let space = network.name("s");
        network.plug(&space, &network.name("p"), network.subnet.server())?;
        network.server = Some(Server::start(&space, network.subnet.server())?);
        Ok(network)
    }

    /// Makes an end for an instance of `kind`.
    ///
    /// # Errors
    /// `ip` fails, a signal wants the benchmark to end, or the network has had 10000 ends.
    pub(crate) fn join(&self, kind: Kind) -> anyhow::Result<End> {
        let number = self.ends.replace(self.ends.get() + 1);
        ensure!(number < MOST_ENDS, "the network has had {MOST_ENDS} ends");
        let (device, space) = (self.name(&format!("d{number}")), self.name(&format!("n{number}")));
        let (attachment, address) = match kind {
            Kind::Process => (Attachment::Host, self.subnet.host()),
            Kind::Container | Kind::Sandbox => {
                (Attachment::Namespace(space.clone()), self.subnet.instance(number))
            }
            Kind::MicroVm => (Attachment::Tap(device.clone()), self.subnet.instance(number)),
        };
        // Before it is there: it is removed even if it is there by half.
        let removal = match kind {
            Kind::Process => Vec::new(),
            Kind::Container | Kind::Sandbox => vec![delete("netns", &space), delete("link", &device)],
            Kind::MicroVm => vec![delete("link", &device)],
        };
        let link = Link { attachment, address, prefix: subnet::PREFIX, server: self.subnet.server() };
        let end = End { link, removal };
        match kind {
            Kind::Process => {}
            Kind::Container | Kind::Sandbox => self.plug(&space, &device, address)?,
            Kind::MicroVm => {
                let enslave = format!("link set {device} master {} up", self.name("b"));
                ip(&self.folder, None, &[format!("tuntap add dev {device} mode tap"), enslave])?;
            }
        }
        Ok(end)
    }

    fn name(&self, end: &str) -> String {
        format!("{}{end}", self.prefix)
    }

    /// Makes the namespace `space`, whose eth0 has `address` and is behind the host's `device`.
    fn plug(&self, space: &str, device: &str, address: Ipv4Addr) -> anyhow::Result<()> {
        let lines = [
            format!("netns add {space}"),
            format!("link add {device} type veth peer name eth0 netns {space}"),
            format!("link set {device} master {} up", self.name("b")),
        ];
        ip(&self.folder, None, &lines)?;
        let address = format!("address add {address}/{} dev eth0", subnet::PREFIX);
        ip(&self.folder, Some(space), &[address, "link set eth0 up".to_owned(), "link set lo up".to_owned()])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its sockets would keep the namespace.
        self.server = None;
        remains::remove_networks(&self.folder);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.removal.drain(..).for_each(helper::tidy);
    }
}

fn delete(kind: &str, name: &str) -> Command {
    let mut command = Command::new("ip");
    command.args([kind, "delete", name]);
    command
}

/// Has `ip` do `lines`, within the namespace `space`; they go through a file in `folder`.
///
/// # Errors
/// One of them fails, and those after it are not done; a signal wants the benchmark to end.
fn ip(folder: &Path, space: Option<&str>, lines: &[String]) -> anyhow::Result<()> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all((lines.join("\n") + "\n").as_bytes())?;
    let mut command = Command::new("ip");
    if let Some(space) = space {
        command.args(["-netns", space]);
    }
    command.arg("-batch").arg(file.path());
    helper::output(command, helper::LIMIT).map(drop)
}
