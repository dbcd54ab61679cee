//! What an instance isolates: a probe looks around inside, and is compared with the same look at the host; from outside come
//! the instance's processes and their system calls.

mod facts;
mod rights;

use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow, ensure};
use procfs::process::Process;

use crate::probe::{self, Sight, Trial, Trials};
use crate::report::Progress;
use crate::results::{Answer, Isolation, Kind, Means};

use super::contender::{Entry, Order, taking_part};
use super::instance::Instance;
use super::stage::Stage;
use super::task::{MARKER, Task};
use super::trace::Tracer;
use super::{interrupt, tree};

/// The most that a probe's line may have, in bytes. What comes out of an instance is not to be trusted.
const MOST: usize = 256 << 10;

/// A console may print something in the middle of the probe's line. It is asked again so many times.
const LOOKS: usize = 3;

/// What a kernel says when it panics.
const PANIC: &str = "Kernel panic";

/// Probes each contender.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(crate) fn measure(stage: &Stage, entries: &mut [Entry], notes: &mut Vec<String>) -> anyhow::Result<()> {
    // What setting up has left counts as nobody's.
    tree::clear();
    let host = Sight::look();
    let tracer = Tracer::find();
    if let Err(error) = &tracer {
        notes.push(format!("the host system calls of instances are not known: {error:#}"));
    }
    let progress = Progress::phase("isolation", taking_part(entries));
    for entry in entries.iter_mut().filter(|entry| entry.takes_part) {
        progress.tick(&entry.result.title);
        let probed = inside(stage, entry, &host);
        tree::clear();
        interrupt::check()?;
        match probed {
            Ok(isolation) => entry.result.isolation = Some(isolation),
            Err(error) => {
                // The host's boot id went in as an argument, and may come back in what was printed.
                let boot_id = facts::file(&host, "/proc/sys/kernel/random/boot_id");
                let error = format!("{error:#}");
                let error = if boot_id.is_empty() { error } else { error.replace(boot_id, "…") };
                entry.fail("isolation", &anyhow!(error));
                continue;
            }
        }
        let outside = outside(stage, entry);
        tree::clear();
        interrupt::check()?;
        match (outside, &mut entry.result.isolation) {
            (Ok(outside), Some(isolation)) => {
                isolation.host_processes_filtered = Some(outside.filtered);
                isolation.host_users = outside.users;
            }
            (Err(error), _) => entry.fail("isolation, processes on the host", &error),
            (Ok(_), None) => {}
        }
        let Ok(tracer) = &tracer else { continue };
        let calls = tracer.trace(stage, entry);
        tree::clear();
        interrupt::check()?;
        match (calls, &mut entry.result.isolation) {
            (Ok(calls), Some(isolation)) => {
                notes.extend(calls.doubt.map(|doubt| format!("{}: {doubt}", entry.result.name)));
                isolation.host_syscalls = Some(calls.names);
            }
            (Err(error), _) => entry.fail("isolation, system calls", &error),
            (Ok(_), None) => {}
        }
    }
    Ok(())
}

/// What the probe tells. In a VM it tries what it may; elsewhere nothing is tried, and rights tell.
fn inside(stage: &Stage, entry: &Entry, host: &Sight) -> anyhow::Result<Isolation> {
    let boot_id = probe::boot_id().filter(|_| entry.result.kind == Kind::MicroVm);
    let task = match &boot_id {
        Some(boot_id) => Task::probe(&[probe::TRY, boot_id]),
        None => Task::probe(&[]),
    };
    let mut looks = 0..LOOKS;
    let (seen, trials) = loop {
        let look = looks.next();
        match look_inside(stage, entry, &task) {
            Err(error) if look.is_some() && error.is::<serde_json::Error>() => tree::clear(),
            outcome => break outcome?,
        };
    };
    let status = rights::Status::of(&seen);
    let host_kernel = facts::host_kernel(host, &seen);
    let leaks = facts::compare(host, &seen, host_kernel.yes);
    let (load_module, set_clock) = match trials {
        Some(trials) => (tried(&trials.load_module), tried(&trials.set_clock)),
        None => (rights::load_module(&seen, &status), rights::set_clock(&seen, &status)),
    };
    let panic = boot_id.and_then(|boot_id| {
        tree::clear();
        panics(stage, entry, &boot_id)
    });
    Ok(Isolation {
        kernel: seen.release.clone(),
        host_kernel,
        host_syscalls: None,
        seccomp: status.seccomp,
        no_new_privileges: status.no_new_privileges,
        host_processes_filtered: None,
        host_users: Vec::new(),
        capabilities: rights::names(status.capabilities),
        uid_map: facts::words(&seen, "/proc/self/uid_map"),
        gid_map: facts::words(&seen, "/proc/self/gid_map"),
        leaks,
        panic: panic.unwrap_or_else(|| rights::panic(&seen)),
        devices: seen.devices,
        load_module,
        set_clock,
    })
}

fn look_inside(stage: &Stage, entry: &Entry, task: &Task) -> anyhow::Result<(Sight, Option<Trials>)> {
    let id = format!("{}-probe", stage.id());
    let mut instance = Instance::start(stage, entry, &Order::new(&id, task))?;
    let (_, text) = instance.line(probe::SIGHT.as_bytes())?;
    ensure!(text.len() <= MOST, "the probe printed a line of {} bytes", text.len());
    let sight = serde_json::from_str(&text)?;
    instance.end()?;
    let trials = instance.seen(probe::TRIALS.as_bytes()).filter(|(_, text)| text.len() <= MOST);
    Ok((sight, trials.map(|(_, text)| serde_json::from_str(&text)).transpose()?))
}

fn tried(trial: &Trial) -> Answer {
    Answer { yes: trial.yes, by: Means::Tried, seen: facts::excerpt(&trial.seen) }
}

/// Has the guest's kernel panic, and sees from outside whether it did. None where the probe refused, or never came to it.
fn panics(stage: &Stage, entry: &Entry, boot_id: &str) -> Option<Answer> {
    let id = format!("{}-panic", stage.id());
    let task = Task::probe(&[probe::PANIC, boot_id]);
    let mut instance = Instance::start(stage, entry, &Order::new(&id, &task)).ok()?;
    let line = instance.line(PANIC.as_bytes());
    instance.seen(probe::GOING.as_bytes())?;
    let (yes, seen) = match (line, instance.seen(probe::ALIVE.as_bytes())) {
        (Ok((_, rest)), _) => (true, format!("{PANIC} {rest}")),
        (Err(_), Some((_, why))) => (false, why),
        (Err(_), None) => (true, "the guest was gone, without a word on its console".to_owned()),
    };
    Some(Answer { yes, by: Means::Tried, seen: facts::excerpt(&seen) })
}

/// What can be seen from outside.
struct Outside {
    /// How many processes have a filter, and how many there are.
    filtered: [usize; 2],
    /// Whose they are.
    users: Vec<u32>,
}

/// Looks at an idle instance's processes on the host.
fn outside(stage: &Stage, entry: &Entry) -> anyhow::Result<Outside> {
    let id = format!("{}-idle", stage.id());
    let mut instance = Instance::start(stage, entry, &Order::new(&id, &Task::idle()))?;
    instance.line(MARKER)?;
    let processes = tree::descendants();
    ensure!(!processes.is_empty(), "it has none");
    let filtered = processes.iter().filter(|process| is_filtered(process).unwrap_or(false)).count();
    let users: BTreeSet<u32> = processes
        .iter()
        .filter_map(|process| process.status().ok())
        .flat_map(|status| [status.ruid, status.euid])
        .collect();
    Ok(Outside { filtered: [filtered, processes.len()], users: users.into_iter().collect() })
}

/// Whether each thread of the process has a seccomp filter, or is in the strict mode.
pub(super) fn is_filtered(process: &Process) -> anyhow::Result<bool> {
    let mut threads = 0;
    for thread in process.tasks()? {
        let status = thread?.status()?;
        threads += 1;
        if status.seccomp.context("the kernel has no seccomp")? == 0 {
            return Ok(false);
        }
    }
    Ok(threads > 0)
}
