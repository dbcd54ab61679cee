//! How long a start takes, and what it costs.

use crate::results::{Parts, Start};

use super::contender::{Entry, Order};
use super::instance::{Instance, cpu_of_children};
use super::stage::Stage;
use super::task::{MARKER, Task};
use super::{interrupt, tree};

/// What a VM's first process says first.
const INIT: &[u8] = b"rvmm-bench: init";

/// What it says last; how long its kernel had run at [`INIT`] follows, in ns, or 0.
const KERNEL: &[u8] = b"rvmm-bench: kernel ";

/// Starts each contender `warm_up` and then `runs` times, in turns. One that fails is given up.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(crate) fn measure(
    stage: &Stage,
    entries: &mut [Entry],
    warm_up: usize,
    runs: usize,
) -> anyhow::Result<()> {
    for turn in 0..warm_up + runs {
        for entry in entries.iter_mut().filter(|entry| entry.takes_part) {
            let sample = once(stage, entry, turn);
            let left = tree::clear();
            interrupt::check()?;
            if !left.is_empty() && sample.is_ok() && turn == 0 {
                entry.result.errors.push(format!("a start left processes behind: {}", left.join(", ")));
            }
            match sample {
                Ok(sample) if turn >= warm_up => entry.result.start.push(sample),
                Ok(_) => {}
                Err(error) => entry.give_up("start", &error),
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
    let parts = instance.seen(INIT).zip(instance.seen(KERNEL)).and_then(|((init, _), (_, clock))| {
        let kernel = clock.parse::<f64>().ok().filter(|&ns| ns > 0.0)? / 1e6;
        Some(Parts { vmm: init - kernel, kernel, init: marker - init })
    });
    Ok(Start { marker, end, cpu, parts })
}
