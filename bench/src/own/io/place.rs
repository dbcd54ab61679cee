//! Where the benchmark runs: here, or on the emulated host; and the kernel and images that it takes along.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, hint, thread};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::args::IoArgs;
use crate::own::emulated::{self, How, Need};

/// What every guest boots.
pub(crate) struct Resources {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) rootfs: PathBuf,
}

/// Finds or makes what is needed, and goes where Linux guests run.
///
/// # Errors
/// As of [`emulated::enter`].
pub(crate) fn enter(args: &IoArgs) -> anyhow::Result<Resources> {
    let kernel = Need {
        option: "--kernel",
        named: args.kernel.as_deref(),
        variable: "RVMM_KERNEL_6_12",
        script: &["debian-kernel", "6.12"],
    };
    let initrd = Need {
        option: "--initrd",
        named: args.initrd.as_deref(),
        variable: "RVMM_INITRD_6_12",
        script: &["initramfs", "--kernel-version", "6.12"],
    };
    let rootfs = Need {
        option: "--rootfs",
        named: args.rootfs.as_deref(),
        variable: "RVMM_TOOLS_ROOTFS",
        script: &["tools-rootfs"],
    };
    let how = How { counted: args.counted, cpus: args.cpus, json: args.json.as_deref() };
    let [kernel, initrd, rootfs] = emulated::enter([kernel, initrd, rootfs], &how)?;
    Ok(Resources { kernel, initrd, rootfs })
}

impl Resources {
    /// Copies of them in `folder`, and `programs` in the host's memory, so that no VMM waits for a disk.
    ///
    /// A clock that counts instructions jumps while the host waits and has nothing to do, by minutes: so it gets something.
    ///
    /// # Errors
    /// A file cannot be read, or there is no room for it.
    pub(crate) fn copied(&self, folder: &Path, programs: &[PathBuf]) -> anyhow::Result<Self> {
        busy(|| {
            let copy = |path: &Path, name: &str| {
                let copy = folder.join(name);
                fs::copy(path, &copy).with_context(|| path.display().to_string())?;
                anyhow::Ok(copy)
            };
            let copies = Self {
                kernel: copy(&self.kernel, "kernel")?,
                initrd: copy(&self.initrd, "initrd")?,
                rootfs: copy(&self.rootfs, "rootfs.ext4")?,
            };
            for program in programs {
                fs::read(program).with_context(|| program.display().to_string())?;
            }
            Ok(copies)
        })
    }
}

/// Does `work`, with another thread busy beside it.
fn busy<T>(work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hint::spin_loop();
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// A folder on tmpfs, so that no disk of the host takes part.
///
/// # Errors
/// There is no `/dev/shm`, or no right to write there.
pub(crate) fn scratch() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("rvmm-bench-").tempdir_in("/dev/shm");
    folder.context("/dev/shm, whose files are memory")
}
