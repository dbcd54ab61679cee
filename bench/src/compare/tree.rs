//! The processes that instances consist of: all that descend from this one.

use std::collections::{HashMap, HashSet};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Makes this process the parent of what its descendants leave behind, so that a runtime's shims and daemons are seen too.
///
/// # Errors
/// The kernel is older than Linux 3.4.
pub(crate) fn adopt_orphans() -> anyhow::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("processes of instances could not be kept track of")?;
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

/// All descendants of this process, in no order. Those that end meanwhile may be missing.
pub(crate) fn descendants() -> Vec<Process> {
    below(own_pid()).into_iter().filter_map(|stat| Process::new(stat.pid).ok()).collect()
}

fn own_pid() -> i32 {
    i32::try_from(process::id()).unwrap_or_default()
}

/// All descendants of the process `pid`, however many: no file of theirs stays open.
fn below(pid: i32) -> Vec<Stat> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        if let Ok(stat) = process.stat() {
            children.entry(stat.ppid).or_default().push(stat);
        }
    }
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

/// Waits until there are no descendants any more, but not for long: a daemon may be among them. Says whether there are none.
pub(crate) fn settle() -> bool {
    let deadline = Instant::now() + SETTLING;
    loop {
        // What nobody waits for any more becomes this process's child.
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return true,
            Ok(WaitStatus::StillAlive) if Instant::now() > deadline => return false,
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_micros(200)),
            _ => {}
        }
    }
}

/// Kills all descendants, without waiting. Returns the names of those that were alive.
pub(crate) fn kill_all() -> Vec<String> {
    halt_children();
    let mut alive = below(own_pid());
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
    let mut halted = HashSet::new();
    for _ in 0..CHASES {
        let children = fs::read_to_string(&list).unwrap_or_default();
        let mut came = false;
        for pid in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
            came |= halted.insert(pid) && kill(Pid::from_raw(pid), Signal::SIGSTOP).is_ok();
        }
        if !came {
            return;
        }
    }
}

/// Kills all descendants and waits until they are gone. Returns the names of those that were alive.
pub(crate) fn clear() -> Vec<String> {
    let deadline = Instant::now() + GRACE;
    let mut names = Vec::new();
    loop {
        reap();
        if below(own_pid()).is_empty() || Instant::now() > deadline {
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
