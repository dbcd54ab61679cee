//! What is compared: the floor, the yardstick, rvmm, and other VMMs and container runtimes that are on PATH.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::json;

use crate::programs::{self, on_path};
use crate::{bare, container};

/// Name of the contender that others are compared with.
pub(crate) const YARDSTICK: &str = "minimal C program";

/// A program that brings the byte.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    argv: Vec<OsString>,
    /// A folder to put in `XDG_RUNTIME_DIR`, where rvmm keeps KVM's CPUID.
    runtime: Option<Runtime>,
    /// A file that an earlier run leaves and the next does not want.
    left: Option<PathBuf>,
}

/// Where rvmm keeps what it need not ask twice.
enum Runtime {
    Kept(PathBuf),
    /// Emptied before each run: a first start.
    Emptied(PathBuf),
}

impl Contender {
    fn new<A: Into<OsString>>(name: &'static str, argv: impl IntoIterator<Item = A>) -> Self {
        Self { name, argv: argv.into_iter().map(Into::into).collect(), runtime: None, left: None }
    }

    /// rvmm with the bare guest and further options; what it keeps is in `folder`.
    pub(crate) fn rvmm(
        folder: &Path,
        name: &'static str,
        args: Vec<OsString>,
        left: Option<PathBuf>,
    ) -> Self {
        let kept = folder.join("kept");
        fs::create_dir_all(&kept).unwrap();
        let program =
            [programs::rvmm().into_os_string(), "--kernel".into(), bare::path("one-byte").into_os_string()];
        let words = program.into_iter().chain(args).collect();
        Self { name, argv: words, runtime: Some(Runtime::Kept(kept)), left }
    }

    /// What has to be done before the clock starts.
    pub(crate) fn prepare(&self) {
        if let Some(Runtime::Emptied(folder)) = &self.runtime {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).unwrap();
        }
        if let Some(left) = &self.left {
            let _ = fs::remove_file(left);
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        if let Some(Runtime::Kept(folder) | Runtime::Emptied(folder)) = &self.runtime {
            command.env("XDG_RUNTIME_DIR", folder);
        }
        command
    }
}

/// All contenders that this host has. What they need is put into `folder`.
pub(crate) fn all(folder: &Path) -> Vec<Contender> {
    let guest = bare::path("one-byte");
    let mut all = vec![
        Contender::new("fork and exec alone", [compile(folder, "floor")]),
        Contender::new(YARDSTICK, [compile(folder, "minimal_kvm"), guest.clone()]),
    ];
    let emptied = Runtime::Emptied(folder.join("emptied"));
    all.push(Contender::rvmm(folder, "rvmm", Vec::new(), None));
    all.push(Contender {
        runtime: Some(emptied),
        ..Contender::rvmm(folder, "rvmm, first start", Vec::new(), None)
    });
    all.extend(firecracker(folder, &guest));
    all.extend(cloud_hypervisor(&guest));
    all.extend(qemu(&guest));
    let containers = ["crun", "runc"].into_iter();
    all.extend(containers.filter_map(|runtime| {
        let argv = container::of_busybox(folder, runtime, &["echo", "!"])?;
        Some(Contender::new(if runtime == "crun" { "crun run" } else { "runc run" }, argv))
    }));
    all
}

/// Compiles `benches/startup/NAME.c`.
fn compile(folder: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/startup/{name}.c"));
    let program = folder.join(name);
    let cc = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&cc).args(["-O2", "-static", "-o"]).arg(&program).arg(source).status();
    let status = status.unwrap_or_else(|error| panic!("{cc}: {error}: install a C compiler"));
    assert!(status.success(), "{cc} {name}.c: {status}");
    program
}

fn firecracker(folder: &Path, guest: &Path) -> Option<Contender> {
    let program = programs::firecracker()?;
    let file = folder.join("firecracker.json");
    let config = json!({
        "boot-source": {"kernel_image_path": guest, "boot_args": "console=ttyS0"},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        "drives": [],
    });
    fs::write(&file, config.to_string()).unwrap();
    let argv: [OsString; 6] = [
        program.into(),
        "--no-api".into(),
        "--config-file".into(),
        file.into(),
        "--level".into(),
        "Off".into(),
    ];
    Some(Contender::new("Firecracker", argv))
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
