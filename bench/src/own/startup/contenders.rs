//! What is compared: the floor, the yardstick, rvmm, and other VMMs and container runtimes that are on PATH.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::json;

use crate::own::bare::Guest;
use crate::own::container::{self, Container};
use crate::own::programs::{self, on_path};

/// Name of the contender that others are compared with.
pub(crate) const YARDSTICK: &str = "minimal C program";

/// Name of rvmm alone.
pub(crate) const RVMM: &str = "rvmm";

/// A program that brings the byte.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    argv: Vec<OsString>,
    /// A folder to put in `XDG_RUNTIME_DIR`, where rvmm keeps KVM's CPUID.
    runtime: Option<Runtime>,
    /// A file that an earlier run leaves and the next does not want.
    left: Option<PathBuf>,
    /// What a run that was killed would leave.
    _container: Option<Container>,
}

/// Where rvmm keeps what it need not ask twice.
enum Runtime {
    Kept(PathBuf),
    /// Emptied before each run: a first start.
    Emptied(PathBuf),
}

impl Contender {
    fn new<A: Into<OsString>>(name: &'static str, argv: impl IntoIterator<Item = A>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { name, argv, runtime: None, left: None, _container: None }
    }

    /// rvmm with the bare guest and further options; what it keeps is in `folder`.
    pub(crate) fn rvmm(
        folder: &Path,
        name: &'static str,
        args: Vec<OsString>,
        left: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let kept = folder.join("kept");
        fs::create_dir_all(&kept)?;
        let guest = Guest::OneByte.file(folder)?;
        let program = [programs::rvmm()?.into_os_string(), "--kernel".into(), guest.into_os_string()];
        let contender = Self::new(name, program.into_iter().chain(args));
        Ok(Self { runtime: Some(Runtime::Kept(kept)), left, ..contender })
    }

    /// What has to be done before the clock starts.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        if let Some(Runtime::Emptied(folder)) = &self.runtime {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        if let Some(left) = &self.left {
            let _ = fs::remove_file(left);
        }
        Ok(())
    }

    pub(crate) fn command(&self) -> Command {
        let mut words = self.argv.iter();
        let mut command = Command::new(words.next().map(OsString::as_os_str).unwrap_or_default());
        command.args(words);
        if let Some(Runtime::Kept(folder) | Runtime::Emptied(folder)) = &self.runtime {
            command.env("XDG_RUNTIME_DIR", folder);
        }
        command
    }
}

/// All contenders that this host has. What they need is put into `folder`.
pub(crate) fn all(folder: &Path) -> anyhow::Result<Vec<Contender>> {
    let guest = Guest::OneByte.file(folder)?;
    let floor = built_in(folder, "floor", include_bytes!(concat!(env!("OUT_DIR"), "/floor")))?;
    let minimal = built_in(folder, "minimal_kvm", include_bytes!(concat!(env!("OUT_DIR"), "/minimal_kvm")))?;
    let mut all = vec![
        Contender::new("fork and exec alone", [floor]),
        Contender::new(YARDSTICK, [minimal, guest.clone()]),
        Contender::rvmm(folder, RVMM, Vec::new(), None)?,
        Contender {
            runtime: Some(Runtime::Emptied(folder.join("emptied"))),
            ..Contender::rvmm(folder, "rvmm, first start", Vec::new(), None)?
        },
    ];
    all.extend(firecracker(folder, &guest)?);
    all.extend(cloud_hypervisor(&guest));
    all.extend(qemu(&guest));
    for (runtime, name) in [("crun", "crun run"), ("runc", "runc run")] {
        match container::of_busybox(folder, runtime, &["echo", "!"]) {
            Ok(container) => {
                let contender = Contender::new(name, container.argv());
                all.push(Contender { _container: Some(container), ..contender });
            }
            Err(error) => eprintln!("without {runtime}: {error:#}"),
        }
    }
    Ok(all)
}

/// Writes a program that is built in.
fn built_in(folder: &Path, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
    let program = folder.join(name);
    fs::write(&program, content).with_context(|| program.display().to_string())?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

fn firecracker(folder: &Path, guest: &Path) -> anyhow::Result<Option<Contender>> {
    let Some(program) = programs::firecracker() else { return Ok(None) };
    let file = folder.join("firecracker.json");
    let config = json!({
        "boot-source": {"kernel_image_path": guest, "boot_args": "console=ttyS0"},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        "drives": [],
    });
    fs::write(&file, config.to_string())?;
    let argv: [OsString; 6] = [
        program.into(),
        "--no-api".into(),
        "--config-file".into(),
        file.into(),
        "--level".into(),
        "Off".into(),
    ];
    Ok(Some(Contender::new("Firecracker", argv)))
}

fn cloud_hypervisor(guest: &Path) -> Option<Contender> {
    let program = on_path("cloud-hypervisor")?;
    let argv = [program.into(), OsString::from("--kernel"), guest.into()];
    let rest = ["--memory", "size=128M", "--cpus", "boot=1", "--serial", "tty", "--console", "off"];
    Some(Contender::new("Cloud Hypervisor", argv.into_iter().chain(rest.map(OsString::from))))
}

fn qemu(guest: &Path) -> Option<Contender> {
    let program = on_path("qemu-system-x86_64")?;
    let machine =
        ["-M", "microvm", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", "128", "-smp", "1"];
    let rest =
        ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel"];
    let argv = std::iter::once(program.into_os_string())
        .chain(machine.map(OsString::from))
        .chain(rest.map(OsString::from))
        .chain([guest.into()]);
    Some(Contender::new("QEMU microvm", argv))
}
