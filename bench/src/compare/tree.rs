//! The processes that instances consist of: all that descend from this one, but for those that were there before, and what these
//! have started: a shell can have had children before it became this program, and the first process of a container gets
//! every orphan in it.
//!
//! What is orphaned later, and was started neither by an instance nor by a process that was seen below this one, cannot be told from
//! an instance's: the first process of a container had better not be this one where others are started in it.

use std::collections::{HashMap, HashSet};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use procfs::process::{Process, Stat, all_processes};

/// Whether children may be here that nobody else waits for.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// How long a process has to end after SIGKILL before it is told of: one that the kernel holds can't be waited for.
const GRACE: Duration = Duration::from_secs(10);

/// How often this process's children are looked for that appear while others of them are halted.
const CHASES: usize = 1000;

/// How long what an instance has started may go on after it.
const SETTLING: Duration = Duration::from_secs(3);

/// What is no instance's.
static FOREIGN: LazyLock<Mutex<Foreign>> = LazyLock::new(|| Mutex::new(Foreign::now()));

/// Processes that are no instance's, although they may descend from this one.
struct Foreign {
    /// Their IDs, and when they were started: an ID can become another's.
    known: HashMap<i32, u64>,
    /// Whether some of them are this process's children, or may become that.
    near: bool,
}

impl Foreign {
    /// All processes that are there now.
    fn now() -> Self {
        let all = all();
        let known = all.iter().map(|stat| (stat.pid, stat.starttime)).collect();
        Self { known, near: own_pid() == 1 || all.iter().any(|stat| stat.ppid == own_pid()) }
    }

    /// Whether the process is one of them.
    fn has(&self, stat: &Stat) -> bool {
        self.known.get(&stat.pid) == Some(&stat.starttime)
    }

    /// The same, in a hurry: most are none of them by their ID.
    fn has_id(&self, pid: i32) -> bool {
        self.known.contains_key(&pid)
            && Process::new(pid).and_then(|process| process.stat()).is_ok_and(|stat| self.has(&stat))
    }

    /// What descends from this process, without them. What they have started is remembered, since it can lose its parent.
    fn strip(&mut self) -> Vec<Stat> {
        let mut children = by_parent();
        let mut found = Vec::new();
        let mut parents = vec![(own_pid(), false)];
        while let Some((parent, foreign)) = parents.pop() {
            for stat in children.remove(&parent).unwrap_or_default() {
                let foreign = foreign || self.has(&stat);
                parents.push((stat.pid, foreign));
                if foreign {
                    self.known.insert(stat.pid, stat.starttime);
                } else {
                    found.push(stat);
                }
            }
        }
        found
    }
}

fn foreign() -> std::sync::MutexGuard<'static, Foreign> {
    FOREIGN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process the parent of what its descendants leave behind, so that a runtime's shims and daemons are seen too.
/// What is there already is no instance's from now on.
///
/// # Errors
/// The kernel is older than Linux 3.4.
pub(crate) fn adopt_orphans() -> anyhow::Result<()> {
    LazyLock::force(&FOREIGN);
    nix::sys::prctl::set_child_subreaper(true)
        .context("processes of instances could not be kept track of")?;
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

/// All descendants of this process that are instances', in no order. Those that end meanwhile may be missing.
pub(crate) fn descendants() -> Vec<Process> {
    own().into_iter().filter_map(|stat| Process::new(stat.pid).ok()).collect()
}

fn own_pid() -> i32 {
    i32::try_from(process::id()).unwrap_or_default()
}

/// A process, for a reader.
pub(crate) fn named(stat: &Stat) -> String {
    format!("process {} ({})", stat.pid, stat.comm)
}

/// All processes, however many: no file of theirs stays open.
fn all() -> Vec<Stat> {
    let processes = all_processes().into_iter().flatten().flatten();
    processes.filter_map(|process| process.stat().ok()).collect()
}

fn by_parent() -> HashMap<i32, Vec<Stat>> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for stat in all() {
        children.entry(stat.ppid).or_default().push(stat);
    }
    children
}

/// All descendants of this process that are instances'.
fn own() -> Vec<Stat> {
    foreign().strip()
}

/// All descendants of the process `pid`, one of an instance's.
fn below(pid: i32) -> Vec<Stat> {
    let mut children = by_parent();
    let mut parents = vec![pid];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        let of_it = children.remove(&parent).unwrap_or_default();
        parents.extend(of_it.iter().map(|child| child.pid));
        found.extend(of_it);
    }
    found
}

/// Kills `child`, the group that it leads, and all that descends from it, and waits until they are gone.
pub(crate) fn kill_with_descendants(child: &mut Child) {
    let Ok(pid) = i32::try_from(child.id()) else { return };
    let below: Vec<i32> = below(pid).into_iter().map(|process| process.pid).collect();
    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    for &pid in &below {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.kill();
    let _ = child.wait();
    // They are this process's children now. A runtime that is asked to remove the rest would wait for them.
    let deadline = Instant::now() + GRACE;
    for pid in below {
        while waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Reaps what has ended, without waiting.
pub(crate) fn reap() {
    if !ADOPTS.load(Ordering::Relaxed) {
        return;
    }
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// Waits until there are no descendants of instances any more, but not for long: a daemon may be among them. Says whether there are none.
pub(crate) fn settle() -> bool {
    let deadline = Instant::now() + SETTLING;
    let near = foreign().near;
    loop {
        // What nobody waits for any more becomes this process's child.
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return true,
            Ok(WaitStatus::StillAlive) if near && own().is_empty() => return true,
            Ok(WaitStatus::StillAlive) if Instant::now() > deadline => return false,
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_micros(200)),
            _ => {}
        }
    }
}

/// Kills all descendants, without waiting. Returns the names of those that were alive.
pub(crate) fn kill_all() -> Vec<String> {
    halt_children();
    let mut alive = own();
    alive.retain(|stat| stat.state != 'Z');
    // All are halted before the first is killed: those that are left could start others meanwhile.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        // It may have ended just now.
        alive.retain(|stat| kill(Pid::from_raw(stat.pid), signal) != Err(Errno::ESRCH));
    }
    let mut names: Vec<_> = alive.into_iter().map(|stat| stat.comm).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Halts the processes that nobody waits for any more but this one. One that starts another and ends, over and over, has gone by
/// the time that all of /proc has been read; this list is short.
fn halt_children() {
    let list = format!("/proc/self/task/{}/children", own_pid());
    let (foreign, mut halted) = (foreign(), HashSet::new());
    for _ in 0..CHASES {
        let children = fs::read_to_string(&list).unwrap_or_default();
        let mut came = false;
        for pid in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
            came |= halted.insert(pid)
                && !foreign.has_id(pid)
                && kill(Pid::from_raw(pid), Signal::SIGSTOP).is_ok();
        }
        if !came {
            return;
        }
    }
}

/// Kills all descendants and waits until they are gone. Returns the names of those that were alive, and says which are there
/// still, when they do not go.
pub(crate) fn clear() -> Vec<String> {
    let deadline = Instant::now() + GRACE;
    let mut names = Vec::new();
    loop {
        reap();
        let left = own();
        if left.is_empty() {
            return names;
        }
        if Instant::now() > deadline {
            names.extend(left.iter().map(|stat| format!("{}, which SIGKILL does not end", named(stat))));
            return names;
        }
        for name in kill_all() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

    use std::process::Command;

    use super::*;

    #[test]
    fn children_that_were_there_before_and_what_they_start_are_no_instances() {
        let spawn = |script: &str| Command::new("sh").args(["-c", script]).spawn().unwrap();
        // It starts another one when it is told to: after it was seen.
        let mut before = spawn("trap 'sleep 77.5 & wait' USR1; while :; do sleep 0.05; done");
        let mut foreign = Foreign::now();
        let mut instance = spawn("sleep 77.25 & wait");
        kill(Pid::from_raw(i32::try_from(before.id()).unwrap()), Signal::SIGUSR1).unwrap();
        let sleeps =
            |child: &Child| below(i32::try_from(child.id()).unwrap()).iter().any(|stat| stat.comm == "sleep");
        let deadline = Instant::now() + GRACE;
        while !(sleeps(&before) && sleeps(&instance)) {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(10));
        }
        let found: HashSet<i32> = foreign.strip().iter().map(|stat| stat.pid).collect();
        let all_of = |child: &Child| {
            let pid = i32::try_from(child.id()).unwrap();
            below(pid).into_iter().map(|stat| stat.pid).chain([pid]).collect::<Vec<_>>()
        };
        let (theirs, ours) = (all_of(&before), all_of(&instance));
        kill_with_descendants(&mut before);
        kill_with_descendants(&mut instance);
        assert!(foreign.near && theirs.len() > 1 && ours.len() > 1);
        assert!(ours.iter().all(|pid| found.contains(pid)), "{ours:?} {found:?}");
        assert!(!theirs.iter().any(|pid| found.contains(pid)), "{theirs:?} {found:?}");
    }
}
