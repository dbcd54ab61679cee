//! Where the benchmark runs: here, or on the emulated host; and the kernel and images that it takes along.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, hint, thread};

use tempfile::TempDir;

use crate::emulated;
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

/// Makes what is needed, and goes where Linux guests run.
pub(crate) fn enter(options: &Options) -> Resources {
    let how = emulated::How { counted: options.counted, cpus: options.cpus, json: options.json.as_deref() };
    let [kernel, initrd, rootfs] = emulated::enter(MADE_BY, &how);
    Resources { kernel, initrd, rootfs }
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
