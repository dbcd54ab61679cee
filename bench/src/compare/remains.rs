//! What a comparison leaves on the host if nobody removes it, and its removal: at the end, and for a comparison that was killed
//! by the process that [`keeper`](super::keeper) starts, or by the next comparison.
//!
//! All of it can be told by the name of the comparison's folder, which no other ever has:
//! - processes have it in their environment ([`mark`]), whoever their parent is now;
//! - control groups are below one of that name;
//! - mounts are below the folder, and so is what runtimes keep of their containers;
//! - network namespaces and devices have the last part of the name in theirs ([`network_prefix`]).

mod orphans;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};
use std::{process, thread};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use procfs::process::{MountInfo, all_processes};

use super::{contenders, helper, tree};

/// How the names of all folders begin.
pub(crate) const PREFIX: &str = "rvmm-bench-";

/// The file in a folder that is locked as long as its comparison lives.
const LOCK: &str = "lock";

/// Where processes of instances have the folder's path.
const VARIABLE: &str = "RVMM_BENCH_FOLDER";

/// How long the processes of a comparison have to end after SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// How old a folder without a lock is before it counts as left behind.
const NEW: Duration = Duration::from_mins(10);

/// The folder of this process's comparison.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Says that `folder` is this comparison's, until the lock that is returned is dropped.
///
/// # Errors
/// The lock cannot be made.
pub(crate) fn claim(folder: &Path) -> anyhow::Result<Flock<File>> {
    let path = folder.join(LOCK);
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error);
    let _ = FOLDER.set(folder.to_owned());
    lock.with_context(|| path.display().to_string())
}

/// Has `command`'s process, and all that come of it, be known as this comparison's.
pub(crate) fn mark(command: &mut Command) {
    if let Some((name, value)) = marked() {
        command.env(name, value);
    }
}

/// The environment variable that [`mark`] sets.
pub(crate) fn marked() -> Option<(&'static str, &'static Path)> {
    FOLDER.get().map(|folder| (VARIABLE, folder.as_path()))
}

/// How the name of a network namespace or device begins that belongs to the comparison of `folder`: 8 characters, which leaves
/// 7 for a device.
pub(crate) fn network_prefix(folder: &Path) -> Option<String> {
    let suffix = folder.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    (suffix.len() >= 6).then(|| format!("rb{suffix}"))
}

/// The control group that those of all containers of the comparison of `folder` are in.
pub(crate) fn control_group(folder: &Path) -> String {
    format!("/{}", folder.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what comparisons have left below `parent` that were killed: their folders, and all that is known by them;
/// and networks whose folder is gone.
pub(crate) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Only one's own: in a folder that everybody writes to, another's would have us do as he likes.
        let Ok(metadata) = entry.metadata() else { continue };
        if named && metadata.is_dir() && metadata.uid() == geteuid().as_raw() {
            remove_abandoned(&path);
        }
    }
    orphans::remove(parent);
}

/// Removes what is left of the comparison of `folder`, if it does not live any more.
pub(crate) fn remove_abandoned(folder: &Path) {
    let lock =
        File::open(folder.join(LOCK)).ok().map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock));
    let abandoned = match &lock {
        Some(lock) => lock.is_ok(),
        // Killed before it had one, or not there yet.
        None => is_old(folder),
    };
    if !abandoned {
        return;
    }
    clear(folder);
    let _ = fs::remove_dir_all(folder);
}

fn is_old(folder: &Path) -> bool {
    let modified = fs::metadata(folder).and_then(|folder| folder.modified());
    let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age >= NEW)
}

/// Ends and removes what the comparison of `folder` has started and made outside of it, and mounts below it.
pub(crate) fn clear(folder: &Path) {
    kill_marked(folder);
    for command in contenders::remains(folder) {
        helper::tidy(command);
    }
    kill_marked(folder);
    remove_networks(folder);
    unmount(folder);
    remove_control_groups(folder);
}

/// Kills the processes that belong to the comparison of `folder`, but for this one and those that it descends from.
fn kill_marked(folder: &Path) {
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        tree::reap();
        let left: Vec<i32> = all_processes()
            .into_iter()
            .flatten()
            .flatten()
            .filter(|one| belongs(one, folder))
            .map(|one| one.pid)
            .collect();
        if left.is_empty() {
            return;
        }
        // All are halted before the first is killed: those that are left could start others meanwhile.
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for &pid in &left {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn belongs(process: &procfs::process::Process, folder: &Path) -> bool {
    let own = u32::try_from(process.pid).is_ok_and(|pid| pid == process::id());
    // One that has ended has no environment.
    !own && process.environ().is_ok_and(|environ| {
        environ.get(std::ffi::OsStr::new(VARIABLE)).is_some_and(|value| value == folder.as_os_str())
    })
}

/// Unmounts what is mounted at or below `folder`, the last first.
fn unmount(folder: &Path) {
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
    let mounts: Vec<MountInfo> = mounts.into_iter().flatten().collect();
    for mount in mounts.iter().rev().filter(|mount| mount.mount_point.starts_with(folder)) {
        let _ = umount2(&mount.mount_point, MntFlags::MNT_DETACH);
    }
}

/// Removes the comparison's control group and those in it, in every hierarchy.
fn remove_control_groups(folder: &Path) {
    let name = control_group(folder);
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
    for mount in mounts.into_iter().flatten().filter(|mount| mount.fs_type.starts_with("cgroup")) {
        remove_group(&mount.mount_point.join(name.trim_start_matches('/')));
    }
}

/// Removes a control group and those in it. One whose last process has ended just now can be busy for a moment.
fn remove_group(group: &Path) {
    let Ok(entries) = fs::read_dir(group) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_group(&entry.path());
    }
    for _ in 0..100 {
        match nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, group, nix::unistd::UnlinkatFlags::RemoveDir) {
            Err(Errno::EBUSY) => thread::sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
}

/// Deletes network namespaces and devices that have the comparison's prefix.
pub(crate) fn remove_networks(folder: &Path) {
    let Some(prefix) = network_prefix(folder) else { return };
    delete_networks(|name| name.starts_with(&prefix));
}

/// Deletes network namespaces and devices whose names fit.
fn delete_networks(fits: impl Fn(&str) -> bool) {
    for (place, kind) in [("/run/netns", ["netns", "delete"]), ("/sys/class/net", ["link", "delete"])] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&fits) {
                let mut command = Command::new("ip");
                command.args(kind).arg(entry.file_name());
                helper::tidy(command);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_network_are_the_folders_and_leave_room_for_a_device() {
        let prefix = network_prefix(Path::new("/tmp/rvmm-bench-a1B2c3"));
        assert_eq!(prefix.as_deref(), Some("rba1B2c3"));
        assert_eq!(network_prefix(Path::new("/tmp/rvmm-bench-")), None, "everybody's devices begin so");
    }

    #[test]
    fn a_folder_that_is_locked_or_new_is_left_alone() -> anyhow::Result<()> {
        let parent = tempfile::tempdir()?;
        let [live, new, dead] =
            ["live00", "new000", "dead00"].map(|name| parent.path().join(format!("{PREFIX}{name}")));
        for folder in [&live, &new, &dead] {
            fs::create_dir(folder)?;
        }
        fs::write(dead.join(LOCK), "")?;
        let lock = Flock::lock(File::create(live.join(LOCK))?, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| error)?;
        sweep(parent.path());
        assert_eq!([live.exists(), new.exists(), dead.exists()], [true, true, false]);
        drop(lock);
        Ok(())
    }
}
