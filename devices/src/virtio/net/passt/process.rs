use std::ffi::OsString;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use log::{debug, warn};

use crate::child::Child;
use crate::virtio::net::config::UserNetConfig;
use crate::virtio::net::publish::Protocol;

const PROGRAM: &str = "passt";
/// Bytes of a line of passt's that are kept.
const MAX_LINE_LEN: usize = 240;
/// Bytes of passt's output that are read at a time.
const OUTPUT_BLOCK_LEN: usize = 4096;
/// Blocks of it that are still read when it has ended.
const MAX_BLOCKS_AT_END: usize = 16;
/// How long passt may take to end once its socket is closed, before it is killed.
const PATIENCE: Duration = Duration::from_millis(20);
/// Where systemd-resolved keeps the name servers that it asks itself.
const UPSTREAM_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Why there will be no passt.
#[derive(Debug)]
pub(in crate::virtio::net) enum NoPasst {
    /// It is in no folder of PATH.
    NotFound,
    /// The host refused a descriptor.
    Host(io::Error),
}

/// How passt will be started.
pub(super) struct Plan {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The guest may reach the host's loopback addresses.
    host_loopback: bool,
}

impl Plan {
    pub(super) fn new(config: &UserNetConfig, mtu: u32) -> Result<Self, NoPasst> {
        let UserNetConfig { publish, host_loopback } = config;
        let program = program().ok_or(NoPasst::NotFound)?;
        // Its socket is its standard input, which is the one that a child can be given without further ado.
        let mut arguments: Vec<OsString> =
            ["--foreground", "--quiet", "--fd", "0", "--mtu"].map(OsString::from).into();
        arguments.push(mtu.to_string().into());
        if !host_loopback {
            arguments.push("--no-map-gw".into());
        }
        for (protocol, option) in [(Protocol::Tcp, "--tcp-ports"), (Protocol::Udp, "--udp-ports")] {
            let mut none = true;
            for port in publish.iter().filter(|port| port.protocol == protocol) {
                let address = port.address.map(|address| format!("{address}/")).unwrap_or_default();
                let specification = format!("{address}{}:{}", port.host_port, port.guest_port);
                arguments.extend([option.into(), specification.into()]);
                none = false;
            }
            if none {
                // Or UDP ports of the same numbers would come with TCP ports.
                arguments.extend([option.into(), "none".into()]);
            }
        }
        Ok(Self { program, arguments, host_loopback: *host_loopback })
    }

    /// Starts passt at the other end of `socket`. It ends when its peer is closed, however this process ends.
    pub(super) fn start(&self, socket: &UnixStream) -> io::Result<Passt> {
        let mut arguments = self.arguments.clone();
        if !self.host_loopback {
            for server in name_servers() {
                arguments.extend(["--dns".into(), server.to_string().into()]);
            }
        }
        let (output, error_output) = UnixStream::pair()?;
        output.set_nonblocking(true)?;
        // In a process group of its own: the terminal's Ctrl-C is not for it.
        let child = Child::spawn(&self.program, &arguments, socket, &error_output)?;
        Ok(Passt { child, output: Some(output), line: Vec::new(), last_line: String::new() })
    }
}

/// A passt that runs, or has run.
pub(super) struct Passt {
    child: Child,
    output: Option<UnixStream>,
    /// What there is of a line so far.
    line: Vec<u8>,
    last_line: String,
}

impl Passt {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable when there is something to [`log`](Self::log_output).
    pub(super) fn output(&self) -> Option<RawFd> {
        self.output.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Logs some of what passt has to say. False when there is nothing.
    pub(super) fn log_output(&mut self) -> bool {
        let mut block = [0; OUTPUT_BLOCK_LEN];
        let count = match self.output.as_mut().map(|output| output.read(&mut block)) {
            Some(Ok(count)) if count > 0 => count,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return false,
            _ => {
                // Closed, it is not watched any more.
                self.output = None;
                return false;
            }
        };
        for byte in block.into_iter().take(count) {
            if byte == b'\n' {
                self.log_line();
            } else if self.line.len() < MAX_LINE_LEN {
                self.line.push(byte);
            }
        }
        true
    }

    fn log_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        // Older ones complain of each line where there is no system log.
        if !line.is_empty() && !line.ends_with("to syslog") {
            debug!("passt: {line}");
            self.last_line = line;
        }
    }

    /// Ends it, and says how it ended.
    pub(super) fn obituary(&mut self) -> String {
        let status = self.end().map_or_else(|error| error.to_string(), |status| status.to_string());
        for _ in 0..MAX_BLOCKS_AT_END {
            if !self.log_output() {
                break;
            }
        }
        let Self { last_line, .. } = self;
        let said = if last_line.is_empty() { String::new() } else { format!("; it said: {last_line}") };
        format!("passt ended ({status}){said}")
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            warn!("passt, process {}, does not end: {error}", self.child.id());
        }
    }
}

/// passt, in the folders of PATH.
pub(in crate::virtio::net) fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(PROGRAM))
        .find(executable)
}

/// The name servers to tell passt of: none where it finds them itself, which it does in /etc/resolv.conf. Of servers on
/// a loopback address it can tell a guest only that has a way there, so that who is behind them is asked.
fn name_servers() -> Vec<IpAddr> {
    let servers = |path: &str| -> Vec<IpAddr> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        servers.filter_map(|server| server.trim().parse().ok()).collect()
    };
    let mut known = servers("/etc/resolv.conf");
    if known.is_empty() || known.iter().any(|server| !server.is_loopback()) {
        return Vec::new();
    }
    known = servers(UPSTREAM_RESOLV_CONF);
    known.retain(|server| !server.is_loopback());
    if known.is_empty() {
        warn!("the guest gets no name server: the host's is on its loopback address");
    }
    known
}
