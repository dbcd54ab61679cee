//! A network of the benchmark's own: a bridge, behind it a server in a network namespace, and for each instance an end.
//!
//! Every path is alike: the instance's device (a veth, or a tap), the bridge, a veth, the server. A process of the host has the
//! bridge itself for its device. The addresses are of the range that RFC 2544 has set aside for benchmarks.
//!
//! Interfaces and namespaces are called `rvb`, the number of this process, a letter, and a number, so that those of a process
//! that was killed are known, and are removed by the next. No rule of a firewall is made or changed.

mod name;
mod server;
mod subnet;

use std::cell::Cell;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::geteuid;

use crate::results::Kind;

use super::contender::{Attachment, Link};
use super::stage;

use server::Server;
use subnet::Subnet;

/// The bridge's address on the link, so that it stays when others join.
const BRIDGE_MAC: &str = "02:72:62:00:00:01";

/// A network, which is removed with this.
pub(crate) struct Network {
    subnet: Subnet,
    joined: Cell<u32>,
    server: Option<Server>,
}

/// An instance's end of the network, which is removed with this.
pub(crate) struct Joined {
    /// What the instance is told.
    pub(crate) link: Link,
}

impl Network {
    /// Makes the network and starts its server. What killed benchmarks have left is removed before.
    ///
    /// # Errors
    /// There are no root rights or no `ip`, or the kernel cannot do it.
    pub(crate) fn new() -> anyhow::Result<Self> {
        ensure!(geteuid().is_root(), "an outside network takes root rights");
        ensure!(stage::on_path("ip").is_some(), "ip is not installed; Debian's package iproute2 brings it");
        name::remove(|process| !name::lives(process));
        let mut network = Self { subnet: Subnet::free()?, joined: Cell::new(0), server: None };
        let (bridge, port, space) = (name::own(""), name::own("h"), name::own("s"));
        ip(
            None,
            &[
                format!(
                    "link add {bridge} address {BRIDGE_MAC} type bridge forward_delay 0 mcast_snooping 0"
                ),
                format!("address add {}/{} dev {bridge}", network.subnet.host(), subnet::PREFIX),
                format!("link set {bridge} up"),
            ],
        )?;
        plug(&space, &port, network.subnet.server())?;
        network.server = Some(Server::start(&space, network.subnet.server())?);
        Ok(network)
    }

    /// The address of the server.
    pub(crate) fn server(&self) -> Ipv4Addr {
        self.subnet.server()
    }

    /// Makes an end for an instance of `kind`.
    ///
    /// # Errors
    /// `ip` fails.
    pub(crate) fn join(&self, kind: Kind) -> anyhow::Result<Joined> {
        let number = self.joined.replace(self.joined.get() + 1);
        let address = if kind == Kind::Process { self.subnet.host() } else { self.subnet.instance(number) };
        let (device, space) = (name::own(&format!("d{number}")), name::own(&format!("n{number}")));
        let attachment = match kind {
            Kind::Process => Attachment::Host,
            Kind::Container | Kind::Sandbox => Attachment::Namespace(space.clone()),
            Kind::MicroVm => Attachment::Tap(device.clone()),
        };
        let joined =
            Joined { link: Link { attachment, address, prefix: subnet::PREFIX, server: self.server() } };
        match kind {
            Kind::Process => {}
            Kind::Container | Kind::Sandbox => plug(&space, &device, address)?,
            Kind::MicroVm => {
                let enslave = format!("link set {device} master {} up", name::own(""));
                ip(None, &[format!("tuntap add dev {device} mode tap"), enslave])?;
            }
        }
        Ok(joined)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its sockets would keep the namespace.
        self.server = None;
        name::remove(|process| process == std::process::id());
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let device = match &self.link.attachment {
            Attachment::Host => return,
            Attachment::Tap(device) => device.clone(),
            Attachment::Namespace(space) => {
                let device = name::device_of(space);
                name::remove_namespace(space);
                device
            }
        };
        name::remove_interface(&device);
    }
}

/// Makes the namespace `space`, whose eth0 has `address` and is behind the host's `device`.
fn plug(space: &str, device: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    ip(
        None,
        &[
            format!("netns add {space}"),
            format!("link add {device} type veth peer name eth0 netns {space}"),
            format!("link set {device} master {} up", name::own("")),
        ],
    )?;
    let address = format!("address add {address}/{} dev eth0", subnet::PREFIX);
    ip(Some(space), &[address, "link set eth0 up".to_owned(), "link set lo up".to_owned()])
}

/// Has `ip` do `lines`, within the namespace `space`.
///
/// # Errors
/// One of them fails; the message is `ip`'s.
fn ip(space: Option<&str>, lines: &[String]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    if let Some(space) = space {
        command.args(["-netns", space]);
    }
    // A group of its own: Ctrl-C on the terminal must not end it halfway.
    command
        .args(["-batch", "-"])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("ip")?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where it ends early, its message says why.
        let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("ip: {}", text.trim().replace('\n', "; "));
    }
    Ok(())
}
