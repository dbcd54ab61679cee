//! Whose snapshots are compared, and what each is asked.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::own::bare::Guest;
use crate::own::children::{self, Killed};
use crate::own::client::Client;
use crate::own::{output, programs};

/// A VMM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vmm {
    Rvmm,
    Firecracker,
}

/// A VM's process, which is killed when it is dropped.
pub(crate) struct Machine {
    vmm: Vmm,
    child: Killed,
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

    fn command(self) -> anyhow::Result<Command> {
        Ok(match self {
            Self::Rvmm => Command::new(programs::rvmm()?),
            Self::Firecracker => {
                let mut command = Command::new(programs::firecracker().context("there is no Firecracker")?);
                command.args(["--level", "Off", "--id", "bench"]);
                command
            }
        })
    }

    /// A process with a socket in `folder`, and nothing else.
    fn start(self, folder: &Path) -> anyhow::Result<Machine> {
        let socket = folder.join(format!("{}.sock", self.name()));
        let mut command = self.command()?;
        command.arg("--api-sock").arg(&socket).env("XDG_RUNTIME_DIR", folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = children::spawn(&mut command)?;
        let client = Client::connect(&socket).context(self.name())?;
        Ok(Machine { vmm: self, child, socket, client })
    }

    /// A VM with 1 vCPU and 128 MiB, once its guest has said something.
    ///
    /// # Errors
    /// The VMM refuses, or its guest says nothing.
    pub(crate) fn guest(self, folder: &Path, guest: Guest) -> anyhow::Result<Machine> {
        let kernel = guest.file(folder)?;
        let mut machine = self.start(folder)?;
        let parts = [
            ("/machine-config", json!({"vcpu_count": 1, "mem_size_mib": 128, "track_dirty_pages": true})),
            ("/boot-source", json!({"kernel_image_path": kernel, "boot_args": "console=ttyS0"})),
            ("/actions", json!({"action_type": "InstanceStart"})),
        ];
        for (path, body) in parts {
            machine.put(path, &body)?;
        }
        machine.wait_for_byte()?;
        Ok(machine)
    }

    /// From just before the process is created to the first byte of the guest that is restored from what
    /// [`Machine::create`] has put into `snapshot`.
    ///
    /// # Errors
    /// It cannot be restored, or its guest says nothing.
    pub(crate) fn time_to_restore(self, folder: &Path, snapshot: &Path) -> anyhow::Result<Duration> {
        let (begin, mut machine) = match self {
            Self::Rvmm => {
                let mut command = self.command()?;
                command.arg("restore").arg(snapshot).env("XDG_RUNTIME_DIR", folder);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
                let begin = Instant::now();
                let mut child = children::spawn(&mut command)?;
                output::wait_for(child.stdout.as_mut(), |_| true).context(self.name())?;
                return Ok(begin.elapsed());
            }
            Self::Firecracker => (Instant::now(), self.start(folder)?),
        };
        machine.put(
            "/snapshot/load",
            &json!({
                "snapshot_path": snapshot.join("state"),
                "mem_backend": {"backend_type": "File", "backend_path": snapshot.join("memory")},
                "resume_vm": true,
            }),
        )?;
        machine.wait_for_byte()?;
        Ok(begin.elapsed())
    }
}

impl Machine {
    fn put(&mut self, path: &str, body: &Value) -> anyhow::Result<()> {
        self.client.ask("PUT", path, &body.to_string(), 204).context(self.vmm.name())
    }

    fn wait_for_byte(&mut self) -> anyhow::Result<()> {
        output::wait_for(self.child.stdout.as_mut(), |_| true).context(self.vmm.name())
    }

    /// Has the guest write to some pages.
    pub(crate) fn write_pages(&mut self) -> anyhow::Result<()> {
        self.child.stdin.as_mut().context("the guest reads nothing")?.write_all(b"x")?;
        self.wait_for_byte()
    }

    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.client.ask("PATCH", "/vm", r#"{"state":"Paused"}"#, 204)
    }

    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.client.ask("PATCH", "/vm", r#"{"state":"Resumed"}"#, 204)
    }

    /// Writes a snapshot of rvmm's VM, which runs, to `snapshot`, which must not be there: how long the guest stood still.
    pub(crate) fn create_live(&mut self, snapshot: &Path, kind: &str) -> anyhow::Result<Duration> {
        let body = json!({"snapshot_path": snapshot, "snapshot_type": kind, "live": true});
        self.put("/snapshot/create", &body)?;
        let manifest: Value = serde_json::from_slice(&std::fs::read(snapshot.join("manifest.json"))?)?;
        let micros = manifest.get("pause_us").and_then(Value::as_u64);
        Ok(Duration::from_micros(micros.context("the snapshot's manifest has no pause_us")?))
    }

    /// Writes a snapshot of the paused VM to `snapshot`, which must not be there: how long that took.
    pub(crate) fn create(&mut self, snapshot: &Path, kind: &str) -> anyhow::Result<Duration> {
        let mut body = json!({"snapshot_path": snapshot, "snapshot_type": kind});
        if self.vmm == Vmm::Firecracker {
            std::fs::create_dir(snapshot)?;
            body = json!({
                "snapshot_path": snapshot.join("state"),
                "mem_file_path": snapshot.join("memory"),
                "snapshot_type": kind,
            });
        }
        let begin = Instant::now();
        self.put("/snapshot/create", &body)?;
        Ok(begin.elapsed())
    }
}
