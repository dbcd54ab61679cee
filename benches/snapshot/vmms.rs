//! Whose snapshots are compared, and what each is asked.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::{bare, programs};

/// A VMM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vmm {
    Rvmm,
    Firecracker,
}

/// A VM's process, which is killed when it is dropped.
pub(crate) struct Machine {
    vmm: Vmm,
    child: Child,
    socket: PathBuf,
    client: Client,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// rvmm, and Firecracker where it is at hand.
pub(crate) fn all() -> Vec<Vmm> {
    let firecracker = programs::firecracker().map(|_| Vmm::Firecracker);
    std::iter::once(Vmm::Rvmm).chain(firecracker).collect()
}

impl Vmm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rvmm => "rvmm",
            Self::Firecracker => "Firecracker",
        }
    }

    fn command(self) -> Command {
        match self {
            Self::Rvmm => Command::new(programs::rvmm()),
            Self::Firecracker => {
                let mut command = Command::new(programs::firecracker().unwrap());
                command.args(["--level", "Off", "--id", "bench"]);
                command
            }
        }
    }

    /// A process with a socket in `folder`, and nothing else.
    fn start(self, folder: &Path) -> Machine {
        let socket = folder.join(format!("{}.sock", self.name()));
        let mut command = self.command();
        command.arg("--api-sock").arg(&socket).env("XDG_RUNTIME_DIR", folder);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        let client = Client::connect(&socket);
        Machine { vmm: self, child, socket, client }
    }

    /// A VM with 1 vCPU and 128 MiB, once its guest has said something.
    pub(crate) fn guest(self, folder: &Path, name: &str) -> Machine {
        let mut machine = self.start(folder);
        let parts = [
            ("/machine-config", json!({"vcpu_count": 1, "mem_size_mib": 128, "track_dirty_pages": true})),
            ("/boot-source", json!({"kernel_image_path": bare::path(name), "boot_args": "console=ttyS0"})),
            ("/actions", json!({"action_type": "InstanceStart"})),
        ];
        for (path, body) in parts {
            machine.put(path, &body);
        }
        machine.wait_for_byte();
        machine
    }

    /// From just before the process is created to the first byte of the guest that is restored from what
    /// [`Machine::create`] has put into `snapshot`.
    pub(crate) fn time_to_restore(self, folder: &Path, snapshot: &Path) -> Duration {
        let begin = Instant::now();
        let mut machine = match self {
            Self::Rvmm => {
                let mut command = self.command();
                command.arg("restore").arg(snapshot).env("XDG_RUNTIME_DIR", folder);
                let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
                let mut child = child.unwrap();
                read_byte(&mut child);
                let time = begin.elapsed();
                child.kill().unwrap();
                child.wait().unwrap();
                return time;
            }
            Self::Firecracker => self.start(folder),
        };
        machine.put(
            "/snapshot/load",
            &json!({
                "snapshot_path": snapshot.join("state"),
                "mem_backend": {"backend_type": "File", "backend_path": snapshot.join("memory")},
                "resume_vm": true,
            }),
        );
        machine.wait_for_byte();
        begin.elapsed()
    }
}

fn read_byte(child: &mut Child) {
    let mut buffer = [0; 512];
    let count = child.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
    assert!(count > 0, "the guest's output has ended");
}

impl Machine {
    fn put(&mut self, path: &str, body: &Value) {
        self.client.ask("PUT", path, &body.to_string(), 204);
    }

    pub(crate) fn wait_for_byte(&mut self) {
        read_byte(&mut self.child);
    }

    /// Has the guest write to some pages.
    pub(crate) fn write_pages(&mut self) {
        use std::io::Write as _;
        self.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        self.wait_for_byte();
    }

    pub(crate) fn pause(&mut self) {
        self.client.ask("PATCH", "/vm", r#"{"state":"Paused"}"#, 204);
    }

    pub(crate) fn resume(&mut self) {
        self.client.ask("PATCH", "/vm", r#"{"state":"Resumed"}"#, 204);
    }

    /// Writes a snapshot of rvmm's VM, which runs, to `snapshot`, which must not be there: how long the guest stood still.
    pub(crate) fn create_live(&mut self, snapshot: &Path, kind: &str) -> Duration {
        let body = json!({"snapshot_path": snapshot, "snapshot_type": kind, "live": true});
        self.put("/snapshot/create", &body);
        let manifest = std::fs::read(snapshot.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        Duration::from_micros(manifest["pause_us"].as_u64().unwrap())
    }

    /// Writes a snapshot of the paused VM to `snapshot`, which must not be there: how long that took.
    pub(crate) fn create(&mut self, snapshot: &Path, kind: &str) -> Duration {
        let mut body = json!({"snapshot_path": snapshot, "snapshot_type": kind});
        if self.vmm == Vmm::Firecracker {
            std::fs::create_dir(snapshot).unwrap();
            body["snapshot_path"] = json!(snapshot.join("state"));
            body["mem_file_path"] = json!(snapshot.join("memory"));
        }
        let begin = Instant::now();
        self.put("/snapshot/create", &body);
        begin.elapsed()
    }
}
