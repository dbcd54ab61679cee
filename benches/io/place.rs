//! Where the benchmark runs: here, or on the emulated host; and the kernel and images that it takes along.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs, hint, thread};

use tempfile::TempDir;
use vmm::kvm::host::served_by;

use crate::options::Options;

/// What every guest boots.
pub(crate) struct Resources {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) rootfs: PathBuf,
}

/// The variable, and the script in `resources/` that makes the thing where it is not set.
const MADE_BY: [(&str, &[&str]); 3] = [
    ("RVMM_KERNEL_6_12", &["debian-kernel", "6.12"]),
    ("RVMM_INITRD_6_12", &["initramfs", "--kernel-version", "6.12"]),
    ("RVMM_TOOLS_ROOTFS", &["tools-rootfs"]),
];

/// Makes what is needed; then, where Linux guests do not run here, or instructions are to be counted, this process becomes
/// the emulated host, on which this very program runs again.
pub(crate) fn enter(options: &Options) -> Resources {
    let [kernel, initrd, rootfs] =
        MADE_BY.map(|(variable, script)| env::var_os(variable).map_or_else(|| make(script), PathBuf::from));
    let is_emulated = env::var_os("RVMM_EMULATED_HOST").is_some();
    if is_emulated || (served_by().is_hardware() && !options.counted) {
        return Resources { kernel, initrd, rootfs };
    }

    let mut command = Command::new(resource("emulated-host"));
    command.args(["--memory", "4G", "--env", "FIRECRACKER"]);
    if options.counted {
        command.arg("--icount");
    } else {
        command.args(["--cpus", &options.cpus.to_string()]);
    }
    if let Some(path) = &options.json {
        let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
        command.arg("--rw").arg(folder.unwrap_or(Path::new(".")));
    }
    command.arg("--").arg(env::current_exe().unwrap()).args(env::args_os().skip(1));
    command.envs(MADE_BY.iter().map(|(variable, _)| *variable).zip([kernel, initrd, rootfs]));
    panic!("emulated-host: {}", command.stdin(Stdio::null()).exec());
}

impl Resources {
    /// Copies of them in `folder`, and `programs` in the host's memory, so that no VMM waits for a disk.
    ///
    /// A clock that counts instructions jumps while the host waits and has nothing to do, by minutes: so it gets something.
    pub(crate) fn copied(&self, folder: &Path, programs: &[PathBuf]) -> Self {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
            let copy = |path: &Path, name: &str| {
                let copy = folder.join(name);
                fs::copy(path, &copy).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                copy
            };
            let copies = Self {
                kernel: copy(&self.kernel, "kernel"),
                initrd: copy(&self.initrd, "initrd"),
                rootfs: copy(&self.rootfs, "rootfs.ext4"),
            };
            for program in programs {
                fs::read(program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
            }
            done.store(true, Ordering::Relaxed);
            copies
        })
    }
}

/// A folder on tmpfs, so that no disk of the host takes part.
pub(crate) fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("rvmm-io-").tempdir_in("/dev/shm").unwrap()
}

fn resource(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("resources").join(script)
}

/// Runs a script of `resources/`, which prints the path of what it has made.
fn make(script: &[&str]) -> PathBuf {
    let output = Command::new(resource(script[0]))
        .args(&script[1..])
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script[0]));
    assert!(output.status.success(), "resources/{}: {}", script[0], output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
