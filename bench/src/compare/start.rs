//! How long a start takes, and what it costs.

use crate::report::Progress;
use crate::results::{Kind, Parts, Start};

use super::contender::{Entry, Order, taking_part};
use super::instance::{Instance, cpu_of_children};
use super::stage::Stage;
use super::task::{MARKER, Task};
use super::{interrupt, tree};

/// What a VM's first process says first.
const INIT: &[u8] = b"rvmm-bench: init";

/// What it says last; how long its kernel had run at [`INIT`] follows, in ns, or 0.
const KERNEL: &[u8] = b"rvmm-bench: kernel ";

/// Starts each contender `warm_up` and then `runs` times, in turns. One that fails twice in a row is given up: on a busy host
/// podman loses the output of a container that ends at once, once in some hundred starts.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(crate) fn measure(
    stage: &Stage,
    entries: &mut [Entry],
    warm_up: usize,
    runs: usize,
) -> anyhow::Result<()> {
    let turns = warm_up + runs;
    let progress = Progress::phase("start", turns * taking_part(entries));
    for turn in 0..turns {
        for entry in entries.iter_mut().filter(|entry| entry.takes_part) {
            progress.tick(&entry.result.title);
            let mut sample = once(stage, entry, turn);
            if let Err(error) = &sample {
                tree::clear();
                interrupt::check()?;
                eprintln!("rvmm bench: a start of {} is repeated: {error:#}", entry.result.name);
                sample = once(stage, entry, turn);
            }
            let left = tree::clear();
            interrupt::check()?;
            if !left.is_empty() && sample.is_ok() && turn == 0 {
                entry.result.errors.push(format!("a start left processes behind: {}", left.join(", ")));
            }
            match sample {
                Ok(sample) if turn >= warm_up => entry.result.start.push(sample),
                Ok(_) => {}
                Err(error) => {
                    entry.give_up("start", &error);
                    progress.shorten(turns - turn - 1);
                }
            }
        }
    }
    Ok(())
}

fn once(stage: &Stage, entry: &Entry, turn: usize) -> anyhow::Result<Start> {
    let id = format!("{}-start-{turn}", stage.id());
    let cpu = cpu_of_children();
    let mut instance = Instance::start(stage, entry, &Order::new(&id, &Task::start()))?;
    let (marker, _) = instance.line(MARKER)?;
    instance.end()?;
    tree::settle();
    let end = instance.age();
    let cpu = cpu_of_children() - cpu;
    // What a guest says of itself: of a process it would mean nothing, and of a guest no more than is possible.
    let is_guest = entry.result.kind == Kind::MicroVm;
    let said = instance.seen(INIT).zip(instance.seen(KERNEL)).filter(|_| is_guest);
    let parts = said.and_then(|((init, _), (_, clock))| {
        let kernel = clock.parse::<f64>().ok()? / 1e6;
        let possible = 0.0 < kernel && kernel <= init && init <= marker;
        possible.then_some(Parts { vmm: init - kernel, kernel, init: marker - init })
    });
    Ok(Start { marker, end, cpu, parts })
}
