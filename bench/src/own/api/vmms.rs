//! Whose sockets are compared.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::own::bare::Guest;
use crate::own::children::{self, Killed};
use crate::own::client::{self, Client};
use crate::own::{output, programs};

/// The byte that the guest writes.
const BYTE: u8 = b'!';

/// A VMM with a socket.
pub(crate) struct Vmm {
    pub(crate) name: &'static str,
    program: PathBuf,
    args: &'static [&'static str],
}

/// rvmm, and Firecracker where it is at hand.
///
/// # Errors
/// There is no rvmm.
pub(crate) fn all() -> anyhow::Result<Vec<Vmm>> {
    let mut all = vec![Vmm { name: "rvmm", program: programs::rvmm()?, args: &[] }];
    all.extend(programs::firecracker().map(|program| Vmm {
        name: "Firecracker",
        program,
        args: &["--level", "Off", "--id", "bench"],
    }));
    Ok(all)
}

/// A process that waits for requests. It is killed when it is dropped.
pub(crate) struct Server {
    child: Killed,
    pub(crate) socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Vmm {
    /// From just before the process is created until it has said its version and has ended.
    pub(crate) fn time_without_socket(&self) -> anyhow::Result<Duration> {
        let mut command = Command::new(&self.program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = children::spawn(&mut command)?;
        output::read_to_end(child.stdout.as_mut())?;
        let status = child.wait()?;
        let time = begin.elapsed();
        ensure!(status.success(), "{} --version: {status}", self.program.display());
        Ok(time)
    }

    /// A process with nothing but a socket in `folder`.
    pub(crate) fn start(&self, folder: &Path) -> anyhow::Result<Server> {
        let socket = folder.join(format!("{}.sock", self.name));
        let mut command = Command::new(&self.program);
        command.args(self.args).arg("--api-sock").arg(&socket).env("XDG_RUNTIME_DIR", folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Server { child: children::spawn(&mut command)?, socket })
    }

    /// From just before the process is created until it has answered GET `/`.
    pub(crate) fn time_to_answer(&self, folder: &Path) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let server = self.start(folder)?;
        Client::connect(&server.socket)
            .and_then(|mut client| client.ask("GET", "/", "", 200))
            .context(self.name)?;
        Ok(begin.elapsed())
    }

    /// From just before the request that starts the guest until its byte is there.
    pub(crate) fn time_to_byte(&self, folder: &Path) -> anyhow::Result<Duration> {
        let mut server = self.start(folder)?;
        let mut client = Client::connect(&server.socket).context(self.name)?;
        configure(&mut client, &Guest::OneByte.file(folder)?).context(self.name)?;
        let begin = Instant::now();
        start_guest(&mut client)?;
        output::wait_for(server.child.stdout.as_mut(), |byte| byte == BYTE).context(self.name)?;
        Ok(begin.elapsed())
    }
}

/// A VM of 1 vCPU and 128 MiB.
fn configure(client: &mut Client, guest: &Path) -> anyhow::Result<()> {
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 128});
    client.ask("PUT", "/machine-config", &machine.to_string(), 204)?;
    let source = json!({"kernel_image_path": guest, "boot_args": "console=ttyS0"});
    client.ask("PUT", "/boot-source", &source.to_string(), 204)
}

fn start_guest(client: &mut Client) -> anyhow::Result<()> {
    let start = json!({"action_type": "InstanceStart"});
    // The guest may end before its VMM has answered.
    client.send(&client::request("PUT", "/actions", &start.to_string()))
}

/// Starts a guest that halts for ever, at `server`. Its file is put into `folder`.
///
/// # Errors
/// The server refuses.
pub(crate) fn halt(server: &Server, folder: &Path) -> anyhow::Result<()> {
    let mut client = Client::connect(&server.socket)?;
    configure(&mut client, &Guest::HltForever.file(folder)?)?;
    start_guest(&mut client)?;
    client.answer(204)
}
