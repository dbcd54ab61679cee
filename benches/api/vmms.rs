//! Whose sockets are compared.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{self, Client};
use crate::{bare, programs};

/// The byte that the guest writes.
const BYTE: u8 = b'!';

/// A VMM with a socket.
pub(crate) struct Vmm {
    pub(crate) name: &'static str,
    program: PathBuf,
    args: &'static [&'static str],
}

/// rvmm, and Firecracker where it is at hand.
pub(crate) fn all() -> Vec<Vmm> {
    let mut all = vec![Vmm { name: "rvmm", program: programs::rvmm(), args: &[] }];
    all.extend(programs::firecracker().map(|program| Vmm {
        name: "Firecracker",
        program,
        args: &["--level", "Off", "--id", "bench"],
    }));
    all
}

/// A process that waits for requests. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
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
    pub(crate) fn time_without_socket(&self) -> Duration {
        let begin = Instant::now();
        let output = Command::new(&self.program).arg("--version").stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success());
        begin.elapsed()
    }

    /// A process with nothing but a socket in `folder`.
    pub(crate) fn start(&self, folder: &Path) -> Server {
        let socket = folder.join(format!("{}.sock", self.name));
        let mut command = Command::new(&self.program);
        command.args(self.args).arg("--api-sock").arg(&socket).env("XDG_RUNTIME_DIR", folder);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Server { child: child.unwrap_or_else(|error| panic!("{}: {error}", self.name)), socket }
    }

    /// From just before the process is created until it has answered GET `/`.
    pub(crate) fn time_to_answer(&self, folder: &Path) -> Duration {
        let begin = Instant::now();
        let server = self.start(folder);
        Client::connect(&server.socket).ask("GET", "/", "", 200);
        begin.elapsed()
    }

    /// From just before the request that starts the guest until its byte is there.
    pub(crate) fn time_to_byte(&self, folder: &Path) -> Duration {
        let mut server = self.start(folder);
        let mut client = Client::connect(&server.socket);
        configure(&mut client, "one-byte");
        let begin = Instant::now();
        start_guest(&mut client);
        let mut stdout = server.child.stdout.take().unwrap();
        assert!(read_to_byte(&mut stdout), "{}: the guest's byte did not come", self.name);
        begin.elapsed()
    }
}

/// A VM of 1 vCPU and 128 MiB.
fn configure(client: &mut Client, guest: &str) {
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 128});
    client.ask("PUT", "/machine-config", &machine.to_string(), 204);
    let source = json!({"kernel_image_path": bare::path(guest), "boot_args": "console=ttyS0"});
    client.ask("PUT", "/boot-source", &source.to_string(), 204);
}

fn start_guest(client: &mut Client) {
    let start = json!({"action_type": "InstanceStart"});
    // The guest may end before its VMM has answered.
    client.send(&client::request("PUT", "/actions", &start.to_string()));
}

/// Starts a guest that halts for ever, at `server`.
pub(crate) fn halt(server: &Server) {
    let mut client = Client::connect(&server.socket);
    configure(&mut client, "hlt-forever");
    start_guest(&mut client);
    client.answer(204);
}

/// Reads up to the guest's byte; some VMMs have something to say before it.
fn read_to_byte(stdout: &mut ChildStdout) -> bool {
    let mut buffer = [0; 512];
    loop {
        match stdout.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(count) if buffer[..count].contains(&BYTE) => return true,
            Ok(_) => {}
        }
    }
}
