//! What a comparison leaves on the host if nobody removes it, and its removal: at the end, and for a comparison that was killed
//! by the process that [`keeper`](super::keeper) starts, or by the next comparison.
//!
//! All of it can be told by the name of the comparison's folder, which no other ever has:
//! - processes have it in their environment ([`mark`]), whoever their parent is now;
//! - control groups are below one of that name;
//! - mounts are below the folder, and so is what runtimes keep of their containers;
//! - network namespaces and devices have the last part of the name in theirs ([`network_prefix`]).

mod claim;
mod mounts;
mod orphans;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};
use std::{env, io, process, thread};

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{Process, all_processes};
use tempfile::TempDir;

use super::{contenders, helper, trace, tree};

pub(crate) use claim::PREFIX;

/// Where processes of instances have the folder's path.
const VARIABLE: &str = "RVMM_BENCH_FOLDER";

/// How long the processes of a comparison have to end after SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// How old an empty folder is before it counts as left behind.
const NEW: Duration = Duration::from_mins(10);

/// Where programs are that remove something, besides this process's PATH.
const PROGRAMS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];

/// The folder of this process's comparison.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Says that `folder` is this comparison's, until the lock that is returned is dropped.
///
/// # Errors
/// The lock cannot be made.
pub(crate) fn claim(folder: &Path) -> anyhow::Result<Flock<File>> {
    let lock = claim::take(folder)?;
    let _ = FOLDER.set(folder.to_owned());
    Ok(lock)
}

/// Has `command`'s process, and all that come of it, be known as this comparison's.
pub(crate) fn mark(command: &mut Command) {
    if let Some((name, value)) = marked() {
        command.env(name, value);
    }
}

/// Has `command`'s process not be known as any comparison's, whatever this process is.
pub(crate) fn unmark(command: &mut Command) {
    command.env_remove(VARIABLE);
}

/// The environment variable that [`mark`] sets.
pub(crate) fn marked() -> Option<(&'static str, &'static Path)> {
    FOLDER.get().map(|folder| (VARIABLE, folder.as_path()))
}

/// How the name of a network namespace or device begins that belongs to the comparison of `folder`: 8 characters, which leaves
/// 7 for a device.
pub(crate) fn network_prefix(folder: &Path) -> Option<String> {
    claim::suffix(folder).map(|suffix| format!("rb{suffix}"))
}

/// The control group that those of all containers of the comparison of `folder` are in.
pub(crate) fn control_group(folder: &Path) -> String {
    format!("/{}", folder.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what comparisons have left below `parent`, an absolute path, that were killed: their folders, and all that is known
/// by them.
pub(crate) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        remove_abandoned(&entry.path());
    }
    orphans::remove(parent);
}

/// Removes what is left of the comparison of `folder`, if that is one's, and it does not live any more. The folder goes last,
/// and stays where something else does: the rest is known by it.
pub(crate) fn remove_abandoned(folder: &Path) {
    if let Some(_lock) = claim::abandoned(folder) {
        if clear(folder).is_empty() {
            let _ = delete(folder);
        }
    } else if claim::looks_own(folder) && is_old(folder) {
        // Killed before it had a lock. One that is not empty may be anybody's, and stays.
        let _ = fs::remove_dir(folder);
    }
}

/// Removes all that this process's comparison has started and made, and its folder, as [`remove_abandoned`] does. To be called
/// when none of its processes is left.
pub(crate) fn finish(folder: &mut TempDir) {
    // It would be deleted with mounts and all.
    folder.disable_cleanup(true);
    let mut left = clear(folder.path());
    // What removes may have started a daemon.
    tree::clear();
    if left.is_empty() {
        left.extend(delete(folder.path()).err().map(|error| error.to_string()));
    }
    if !left.is_empty() {
        eprintln!(
            "rvmm bench: {} stays, since this could not be removed: {}",
            folder.path().display(),
            left.join(", ")
        );
    }
}

/// Deletes `folder`, its lock after everything else: should this process be killed, the next one goes on.
fn delete(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != claim::LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(folder.join(claim::LOCK))?;
    fs::remove_dir(folder)
}

fn is_old(folder: &Path) -> bool {
    let modified = fs::metadata(folder).and_then(|folder| folder.modified());
    let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age >= NEW)
}

/// Ends and removes what the comparison of `folder` has started and made outside of it, and mounts below it. Returns what is
/// left of that.
fn clear(folder: &Path) -> Vec<String> {
    kill_marked(folder);
    for command in contenders::remains(folder) {
        tidy(command);
    }
    let mut left = kill_marked(folder);
    remove_networks(folder);
    let networks = networks(folder).into_iter().map(|(_, name)| name.display().to_string());
    left.extend(networks.map(|name| format!("network {name}")));
    match mounts::unmount(folder) {
        Ok(points) => left.extend(points.iter().map(|point| format!("mount {}", point.display()))),
        Err(error) => left.push(format!("mounts: {error}")),
    }
    left.extend(remove_control_groups(folder));
    left.extend(trace::remove_of(folder));
    left
}

/// Runs `command`, which removes something. Where administrators' programs are need not be in this process's PATH.
fn tidy(mut command: Command) {
    let own = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&own).filter(|folder| !folder.as_os_str().is_empty());
    if let Ok(path) = env::join_paths(folders.chain(PROGRAMS.map(PathBuf::from))) {
        command.env("PATH", path);
    }
    helper::tidy(command);
}

/// Kills the processes that belong to the comparison of `folder`, but for this one. Returns those that are there still.
fn kill_marked(folder: &Path) -> Vec<String> {
    let deadline = Instant::now() + GRACE;
    loop {
        tree::reap();
        let mut left: Vec<Process> = all_processes().into_iter().flatten().flatten().collect();
        left.retain(|process| belongs(process, folder));
        if left.is_empty() || Instant::now() > deadline {
            return left
                .iter()
                .filter_map(|process| process.stat().ok())
                .map(|stat| tree::named(&stat))
                .collect();
        }
        // All are halted before the first is killed: those that are left could start others meanwhile.
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for process in &left {
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn belongs(process: &Process, folder: &Path) -> bool {
    let own = u32::try_from(process.pid).is_ok_and(|pid| pid == process::id());
    // One that has ended has no environment.
    !own && process.environ().is_ok_and(|environ| {
        environ.get(OsStr::new(VARIABLE)).is_some_and(|value| Path::new(value).starts_with(folder))
    })
}

/// Removes the comparison's control group and those in it, in every hierarchy. Returns those that are there still.
fn remove_control_groups(folder: &Path) -> Vec<String> {
    let name = control_group(folder);
    let mut hierarchies = mounts::all().unwrap_or_default();
    hierarchies.retain(|mount| mount.kind.starts_with(b"cgroup"));
    let mut groups: Vec<PathBuf> =
        hierarchies.iter().map(|mount| mount.point.join(name.trim_start_matches('/'))).collect();
    for group in &groups {
        remove_group(group);
    }
    groups.retain(|group| group.exists());
    groups.iter().map(|group| format!("control group {}", group.display())).collect()
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
    delete_all(networks(folder));
}

/// Network namespaces and devices that have the comparison's prefix: what `ip` calls their kind, and their names.
fn networks(folder: &Path) -> Vec<(&'static str, OsString)> {
    let prefix = network_prefix(folder);
    networks_that(|name| prefix.as_ref().is_some_and(|prefix| name.starts_with(prefix)))
}

/// Deletes network namespaces and devices whose names fit.
fn delete_networks(fits: impl Fn(&str) -> bool) {
    delete_all(networks_that(fits));
}

fn delete_all(networks: Vec<(&'static str, OsString)>) {
    for (kind, name) in networks {
        let mut command = Command::new("ip");
        command.args([kind, "delete"]).arg(name);
        tidy(command);
    }
}

fn networks_that(fits: impl Fn(&str) -> bool) -> Vec<(&'static str, OsString)> {
    let in_place = |(place, kind)| {
        let names = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.map(move |name| (kind, name))
    };
    let mut found: Vec<(&'static str, OsString)> =
        [("/run/netns", "netns"), ("/sys/class/net", "link")].into_iter().flat_map(in_place).collect();
    found.retain(|(_, name)| name.to_str().is_some_and(&fits));
    found
}

#[cfg(test)]
mod tests;
