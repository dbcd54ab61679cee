//! What all contenders share: the folder of this comparison, the root file system, and its image.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, ensure};
use nix::fcntl::Flock;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::args::CompareArgs;
use crate::input;
use crate::results::Workload;

use super::keeper::{self, Keeper};
use super::{helper, host, remains, task, tree};

/// Virtual CPUs of a guest.
pub(crate) const GUEST_CPUS: u32 = 1;

/// The program that every contender can run.
const BUILT_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bench"));

/// Below the folder: a folder for each instance that has files of its own.
const INSTANCES: &str = "instances";

/// How long a program has to say its version.
const VERSION: Duration = Duration::from_mins(1);

/// Environment variables that name what no option does: the small kernel, a distribution's, and its initial RAM disk.
const KERNEL: &str = "RVMM_KERNEL_SMALL";
const STOCK_KERNEL: &str = "RVMM_KERNEL_6_12";
const STOCK_INITRD: &str = "RVMM_INITRD_6_12";

/// Room in the image beside the files, for what programs write.
const SPARE_MIB: u64 = 64;

/// The most that a workload may have, in bytes.
const MOST_WORKLOAD: u64 = 256 << 20;

/// The folder of a comparison, which is removed with this, after everything that was started.
pub(crate) struct Stage {
    folder: TempDir,
    /// Ends when this is gone, or its process.
    _keeper: Option<Keeper>,
    /// Says that the folder is in use.
    _lock: Flock<fs::File>,
    /// The workload.
    pub(crate) workload: Workload,
    /// A small kernel, for every VMM.
    pub(crate) kernel: Option<PathBuf>,
    /// A distribution's, and its initial RAM disk.
    pub(crate) stock_kernel: Option<(PathBuf, Option<PathBuf>)>,
    /// Memory of a guest, in MiB.
    pub(crate) guest_mib: u64,
    /// In bytes, for all instances together.
    pub(crate) memory_budget: u64,
    /// After how long an instance is given up.
    pub(crate) timeout: Duration,
}

impl Stage {
    /// Makes the folder and the root file system in it, and removes what a comparison before has left that was killed.
    /// To be called before this process adopts what its children leave behind.
    ///
    /// # Errors
    /// A file that was named cannot be read, or the folder cannot be written.
    pub(crate) fn new(args: &CompareArgs) -> anyhow::Result<Self> {
        let parent = fs::canonicalize(&args.folder).with_context(|| args.folder.display().to_string())?;
        // Whoever may rename this folder could have root run what he puts in its place.
        let mode = fs::metadata(&parent)?.permissions().mode();
        ensure!(
            mode & 0o002 == 0 || mode & 0o1000 != 0,
            "--folder {}: everybody may rename what is in it; name another one, or set its sticky bit (chmod +t)",
            parent.display()
        );
        remains::sweep(&parent);
        let folder = tempfile::Builder::new().prefix(remains::PREFIX).tempdir_in(&parent);
        let folder = folder.with_context(|| format!("no folder can be made in {}", parent.display()))?;
        let lock = remains::claim(folder.path())?;
        // Without it the next comparison removes what is left of this one, should it be killed.
        let keeper = keeper::start(folder.path()).ok();
        let kernel = args.kernel.clone().or_else(|| named(KERNEL));
        // Those two belong together.
        let stock = args.stock_kernel.is_none() && args.stock_initrd.is_none();
        let stock_kernel = args.stock_kernel.clone().or_else(|| named(STOCK_KERNEL).filter(|_| stock));
        let stock_initrd = args.stock_initrd.clone().or_else(|| named(STOCK_INITRD).filter(|_| stock));
        for file in [&kernel, &stock_kernel, &stock_initrd].into_iter().flatten() {
            input::open(file)?;
        }
        let (content, file) = match &args.workload {
            None => (BUILT_IN.to_vec(), "built in".to_owned()),
            Some(path) => {
                (input::read(path, MOST_WORKLOAD).context("--workload")?, path.display().to_string())
            }
        };
        task::ensure_static(&content).with_context(|| format!("--workload {file}"))?;
        let workload = Workload { file, size: content.len() as u64, sha256: hex(&Sha256::digest(&content)) };
        let stage = Self {
            folder,
            _keeper: keeper,
            _lock: lock,
            workload,
            kernel: absolute(kernel.as_deref())?,
            stock_kernel: absolute(stock_kernel.as_deref())?
                .map(|kernel| anyhow::Ok((kernel, absolute(stock_initrd.as_deref())?)))
                .transpose()?,
            guest_mib: args.guest_memory,
            memory_budget: args.memory_budget.map_or_else(|| host::available_memory() / 2, |mib| mib << 20),
            timeout: Duration::from_secs(args.timeout),
        };
        stage.make_rootfs(&content)?;
        fs::create_dir(stage.path(INSTANCES))?;
        fs::create_dir(stage.runtime_folder())?;
        fs::set_permissions(stage.runtime_folder(), fs::Permissions::from_mode(0o700))?;
        Ok(stage)
    }

    /// The beginning of every instance's name, which no other comparison on this host has.
    #[expect(clippy::unused_self, reason = "a process has one stage")]
    pub(crate) fn id(&self) -> String {
        format!("bench-{}", std::process::id())
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder for the files of one instance, which has that name among all contenders'.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(crate) fn instance_folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(INSTANCES).join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| path.display().to_string())
            }
            _ => Ok(path),
        }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// For programs that want an `XDG_RUNTIME_DIR`.
    pub(crate) fn runtime_folder(&self) -> PathBuf {
        self.path("run")
    }

    /// The root file system, a folder. Nobody writes to it.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// The root file system as an ext4 image, which is made when it is first wanted. Guests mount it read-only.
    ///
    /// # Errors
    /// There is no mke2fs, or it fails.
    pub(crate) fn image(&self) -> anyhow::Result<PathBuf> {
        let image = self.path("rootfs.ext4");
        if image.exists() {
            return Ok(image);
        }
        let size: u64 = folder_size(&self.rootfs())?;
        fs::File::create(&image)?.set_len((size.div_ceil(1 << 20) + SPARE_MIB) << 20)?;
        let mut command = mke2fs()?;
        command.args(["-O", "^has_journal", "-E", "root_owner=0:0", "-d"]).arg(self.rootfs());
        format(command, &image)?;
        Ok(image)
    }

    /// Memory of a guest, in bytes.
    pub(crate) fn guest_memory(&self) -> u64 {
        self.guest_mib << 20
    }

    fn make_rootfs(&self, workload: &[u8]) -> anyhow::Result<()> {
        let root = self.rootfs();
        for folder in ["dev", "proc", "sys", "tmp", "etc", "run", "data"] {
            fs::create_dir_all(root.join(folder))?;
        }
        // podman mounts files there, and would make what is missing.
        for file in ["etc/hostname", "etc/hosts", "etc/resolv.conf", "run/.containerenv"] {
            fs::write(root.join(file), "")?;
        }
        symlink("/proc/mounts", root.join("etc/mtab"))?;
        put(&root, task::BUILT_IN, BUILT_IN)?;
        put(&root, task::WORKLOAD, workload)?;
        put(&root, task::PROBE, &fs::read("/proc/self/exe").context("/proc/self/exe")?)?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        tree::clear();
        remains::finish(&mut self.folder);
    }
}

/// The command that makes an ext4 file system, for [`format()`].
pub(crate) fn mke2fs() -> anyhow::Result<Command> {
    let elsewhere = || Some(PathBuf::from("/usr/sbin/mke2fs")).filter(|path| path.exists());
    let program = on_path("mke2fs").or_else(elsewhere);
    let mut command =
        Command::new(program.context("mke2fs is not installed; Debian's package e2fsprogs brings it")?);
    command.args(["-q", "-F", "-t", "ext4"]);
    Ok(command)
}

/// Has `command` fill `image`, which is removed where that fails.
///
/// # Errors
/// It fails.
pub(crate) fn format(mut command: Command, image: &Path) -> anyhow::Result<()> {
    command.arg(image);
    helper::output(command, helper::LIMIT).map(drop).inspect_err(|_| {
        let _ = fs::remove_file(image);
    })
}

/// Writes a program into the root file system.
fn put(root: &Path, path: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = root.join(path.trim_start_matches('/'));
    fs::write(&path, content).with_context(|| path.display().to_string())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The program `name` that a shell would find.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The first line that `program` prints when it is asked for its version.
pub(crate) fn version(program: &Path, flag: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.arg(flag);
    let text = helper::output(command, VERSION).ok()?;
    String::from_utf8_lossy(&text)
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(|line| line.chars().take(200).collect())
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn absolute(path: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    path.map(|path| std::path::absolute(path).with_context(|| path.display().to_string())).transpose()
}

/// Bytes of all files below `folder`.
pub(crate) fn folder_size(folder: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        size += if kind.is_dir() { folder_size(&entry.path())? } else { entry.metadata()?.len() };
    }
    ensure!(size < 1 << 40, "{} has {size} bytes", folder.display());
    Ok(size)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
