//! `rvmm clone DIR -n N`: several VMs from one snapshot, each its own process, as `rvmm restore DIR --detach` makes one.

pub(super) mod copy;
mod fleet;
mod memory;
mod plan;

use std::mem;
use std::time::{Duration, Instant};

use serde::Serialize;
use vmm::snapshot::StateFile;

use super::table::{milliseconds, size, table};
use super::{Outcome, detach, fit, print, restore};
use crate::args::CloneArgs;

use copy::Copies;
use fleet::{Fleet, Member};
use memory::Memory;
use plan::Plan;

/// A VM in the report.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    pid: u32,
    start_us: u128,
    memory: Option<Memory>,
}

/// Starts the VMs, and says what each of them took.
pub(crate) fn run(args: &CloneArgs) -> Outcome {
    let snapshot = StateFile::in_folder(&args.dir)?;
    let plan = Plan::new(args, snapshot.config)?;
    let mut copies = Copies::default();
    plan.copy_disks(&snapshot.state.disks, &mut copies)?;
    let began = Instant::now();
    let mut fleet = Fleet::new()?;
    for number in 1..=args.count {
        let vm = plan.vm(number)?;
        let started = fleet.start(&plan.id(number)).map_err(|error| copies.give_up(error))?;
        if let Some(report) = started {
            // In the VM's process, whose these are not.
            mem::forget((fleet, copies));
            let run = |presence: &_| restore::run(&vm, presence);
            return Ok(detach::serve(vm.id.as_deref(), &vm.log, report, run));
        }
    }
    let members = fleet.all().map_err(|error| copies.give_up(error))?;
    let took = began.elapsed();
    copies.keep();
    let rows: Vec<Row> = members.into_iter().map(Row::of).collect();
    if args.json {
        return fit::print_json(&rows);
    }
    print(report(&rows, took).as_bytes())
}

impl Row {
    fn of(member: Member) -> Self {
        let Member { id, pid, took, .. } = member;
        Self { id, pid, start_us: took.as_micros(), memory: Memory::of(pid) }
    }

    fn cells(&self) -> [String; 5] {
        let bytes = |of: fn(&Memory) -> u64| {
            self.memory.as_ref().map_or_else(|| "-".to_owned(), |memory| size(of(memory)))
        };
        [
            self.id.clone(),
            self.pid.to_string(),
            format!(
                "{} ms",
                milliseconds(Duration::from_micros(u64::try_from(self.start_us).unwrap_or(u64::MAX)))
            ),
            bytes(|memory| memory.private),
            bytes(|memory| memory.shared),
        ]
    }
}

fn report(rows: &[Row], took: Duration) -> String {
    let heads = ["ID", "PID", "START", "PRIVATE", "SHARED"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(heads).chain(rows.iter().map(Row::cells)).collect();
    let vms = if rows.len() == 1 { "VM" } else { "VMs" };
    format!("{}{} {vms} in {} ms\n", table(&lines), rows.len(), milliseconds(took))
}
