//! `rvmm ps`

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::table::table;
use super::{Outcome, fit, print};
use crate::args::PsArgs;
use crate::escape::Escape;
use crate::name::known::{self, Known, Life};

/// How long one VM has for its answers, and how long all of them have together.
const PATIENCE: Duration = Duration::from_secs(1);
const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// How many VMs are asked at once.
const AT_ONCE: usize = 16;
/// The states of a VM that answers, and what any other is shown as.
const STATES: [&str; 3] = ["Not started", "Running", "Paused"];
const OTHER: &str = "Unknown";
/// What is not known.
const UNKNOWN: &str = "-";

/// Lists the VMs of this user.
pub(crate) fn run(args: &PsArgs) -> Outcome {
    let all = known::all()?;
    if args.names {
        let names: Vec<&str> = all.iter().flat_map(|vm| [vm.id.as_str(), "\n"]).collect();
        return print(names.concat().as_bytes());
    }
    let rows = ask(&all);
    if args.json {
        return fit::print_json(&rows);
    }
    print(list(&rows).as_bytes())
}

/// Asks several VMs at once: one that does not answer holds the others up no more than it must.
fn ask(all: &[Known]) -> Vec<Row> {
    let deadline = Instant::now() + LIST_PATIENCE;
    let (left, rows) = (Mutex::new(all.iter()), Mutex::new(Vec::new()));
    let ask = || {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(vm) = next else { return };
            let row = Row::of(vm, deadline);
            rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(all.len()) {
            // Without it the others take longer.
            let _ = thread::Builder::new().spawn_scoped(scope, ask);
        }
        ask();
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by(|one, other| one.id.cmp(&other.id));
    rows
}

/// What a VM says of itself.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Instance {
    state: String,
}

/// What it says that it is made of.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Config {
    machine_config: Machine,
    boot_source: Option<BootSource>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Machine {
    vcpu_count: Option<u64>,
    mem_size_mib: Option<u64>,
}

#[derive(Deserialize)]
struct BootSource {
    kernel_image_path: String,
}

/// A VM in the list.
#[derive(Debug, Default, Serialize)]
struct Row {
    id: String,
    state: String,
    pid: Option<u32>,
    vcpus: Option<u64>,
    memory_mib: Option<u64>,
    uptime_s: Option<u64>,
    kernel: Option<String>,
}

impl Row {
    fn of(vm: &Known, deadline: Instant) -> Self {
        let id = vm.id.clone();
        let pid = match vm.life {
            Life::Dead => return Self { id, state: "Dead".to_owned(), ..Self::default() },
            Life::Failed(_) => return Self { id, state: "Failed".to_owned(), ..Self::default() },
            Life::Alive(pid) => pid,
        };
        let until = deadline.min(Instant::now() + PATIENCE);
        let left = || until.saturating_duration_since(Instant::now());
        let (state, config) = if left().is_zero() {
            (OTHER, Config::default())
        } else {
            let asked = vm.reach("ask", left()).and_then(|vm| vm.json::<Instance>("/"));
            match asked.and_then(|instance| Ok((instance, vm.reach("ask", left())?.json("/vm/config")?))) {
                Ok((instance, config)) => (state(&instance.state), config),
                // It listens nowhere, or does not answer: it runs all the same.
                Err(_) => ("Silent", Config::default()),
            }
        };
        Self {
            id,
            state: state.to_owned(),
            pid,
            vcpus: config.machine_config.vcpu_count,
            memory_mib: config.machine_config.mem_size_mib,
            uptime_s: Some(vm.uptime()),
            kernel: config.boot_source.map(|source| source.kernel_image_path),
        }
    }

    fn cells(&self) -> [String; 7] {
        let number = |number: Option<u64>| number.map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string());
        let kernel = self.kernel.as_deref().map(Path::new).and_then(Path::file_name);
        let kernel = kernel.map_or(UNKNOWN.into(), |name| name.to_string_lossy());
        let mut escaped = String::new();
        let _ = Escape(&mut escaped).write_str(&kernel);
        [
            self.id.clone(),
            self.state.clone(),
            number(self.pid.map(u64::from)),
            number(self.vcpus),
            self.memory_mib.map_or_else(|| UNKNOWN.to_owned(), |mib| format!("{mib}M")),
            self.uptime_s.map_or_else(|| UNKNOWN.to_owned(), age),
            escaped,
        ]
    }
}

/// The state that a VM says that it is in: one that there is, whoever it was that answered.
fn state(said: &str) -> &'static str {
    STATES.into_iter().find(|state| said == *state).unwrap_or(OTHER)
}

fn list(rows: &[Row]) -> String {
    let heads = ["ID", "STATE", "PID", "CPUS", "MEMORY", "UPTIME", "KERNEL"].map(str::to_owned);
    table(&std::iter::once(heads).chain(rows.iter().map(Row::cells)).collect::<Vec<_>>())
}

/// Seconds, in the two largest units that count.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_a_kernel_drives_no_terminal() {
        let row = |id: &str, kernel: &str| Row {
            id: id.to_owned(),
            state: "Running".to_owned(),
            memory_mib: Some(128),
            kernel: Some(kernel.to_owned()),
            ..Row::default()
        };
        let text = list(&[row("a", "/boot/vm\x1b[2Jlinux"), row("web-frontend", "k")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("STATE"), lines[2].find("Running"), "{text}");
        assert!(lines[1].ends_with("vm\\u{1b}[2Jlinux"), "{text}");
    }

    #[test]
    fn a_state_that_there_is_not_is_unknown() {
        for said in ["Paused", "Not started", "Running"] {
            assert_eq!(state(said), said);
        }
        for said in ["\u{1b}[2J", "Silent", ""] {
            assert_eq!(state(said), "Unknown");
        }
    }

    #[test]
    fn an_age_has_two_units() {
        assert_eq!([age(9), age(75), age(7_322), age(180_000)], ["9s", "1m15s", "2h2m", "2d2h"]);
    }
}
