//! How many instances a host holds, what each of them takes, and how fast they come up.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::report::Progress;
use crate::results::{Density, Kind, Step};

use super::contender::{Entry, Order, taking_part};
use super::host::available_memory;
use super::instance::Instance;
use super::memory::{of_descendants, rest};
use super::stage::Stage;
use super::task::{MARKER, Task};
use super::{interrupt, tree};

/// How long instances idle before their memory is read.
const IDLE: Duration = Duration::from_secs(1);

/// Starts 1, 2, 4, … instances of each contender, up to `most`.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(crate) fn measure(stage: &Stage, entries: &mut [Entry], most: usize) -> anyhow::Result<()> {
    let progress = Progress::phase("density", taking_part(entries));
    for entry in entries.iter_mut().filter(|entry| entry.takes_part) {
        progress.tick(&entry.result.title);
        let mut density = Density { steps: Vec::new(), ended_by: String::new() };
        let ended_by = climb(stage, entry, most, &mut density.steps);
        tree::clear();
        match ended_by {
            Ok(reason) => density.ended_by = reason,
            Err(error) => {
                // A signal is nobody's failure.
                if !interrupt::came() {
                    entry.fail("density", &error);
                }
                density.ended_by = format!("{error:#}");
            }
        }
        entry.result.density = Some(density);
        interrupt::check()?;
    }
    Ok(())
}

/// Takes steps until there is a reason to end, which is returned.
fn climb(stage: &Stage, entry: &Entry, most: usize, steps: &mut Vec<Step>) -> anyhow::Result<String> {
    let mut count = 1;
    // A guest may touch all of its memory, and what else its first instance takes nobody knows yet.
    let mut expected = if entry.result.kind == Kind::MicroVm { stage.guest_memory() } else { 0 };
    loop {
        if expected > stage.memory_budget {
            let [expected, budget] = [expected, stage.memory_budget].map(|bytes| bytes >> 20);
            return Ok(format!("the memory budget: {count} may take {expected} MiB of {budget}"));
        }
        let step = one_step(stage, entry, count).with_context(|| format!("{count} at a time"));
        tree::clear();
        let Some(step) = step? else {
            return Ok(format!("the memory budget: it was spent while {count} were starting"));
        };
        let next = count.saturating_mul(2).min(most);
        expected = predict(&step, next);
        // Twice as many at most.
        let seconds = step.sequential / 1e3 * 2.0;
        steps.push(step);
        if count >= most {
            return Ok(format!("--max-instances {most}"));
        }
        if seconds > stage.timeout.as_secs_f64() {
            return Ok(format!("the time: to start {next} one after another would take {seconds:.0} s"));
        }
        count = next;
    }
}

/// The memory that `next` instances will take, with a tenth to spare, in bytes: in proportion to what those of `step` have taken,
/// by the larger one of the two ways to tell.
fn predict(step: &Step, next: usize) -> u64 {
    let taken = step.memory.max(u64::try_from(step.host_memory).unwrap_or(0));
    let each = taken.div_ceil(step.instances.max(1) as u64);
    let all = each.saturating_mul(next as u64);
    all.saturating_add(all / 10)
}

/// One after another, and all at once. None if they take more than the budget.
fn one_step(stage: &Stage, entry: &Entry, count: usize) -> anyhow::Result<Option<Step>> {
    let available = available_memory();
    let Some(running) = Running::start(stage, entry, count, Pace::OneAfterAnother)? else { return Ok(None) };
    rest(IDLE)?;
    let memory = of_descendants(None)?.total;
    let host_memory = fall_since(available);
    let sequential = running.ms;
    drop(running);
    tree::clear();
    let running = Running::start(stage, entry, count, Pace::AtOnce)?;
    Ok(running.map(|running| Step {
        instances: count,
        memory,
        host_memory,
        sequential,
        parallel: running.ms,
    }))
}

/// By how much the host's available memory is less than `available`, in bytes.
fn fall_since(available: u64) -> i64 {
    available.cast_signed().saturating_sub(available_memory().cast_signed())
}

/// How instances are started.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Pace {
    /// Each when the one before has printed its marker.
    OneAfterAnother,
    /// None waits for another.
    AtOnce,
}

/// Instances that run until this is dropped.
struct Running {
    _instances: Vec<Instance>,
    /// From just before the first process to the last marker.
    ms: f64,
}

impl Running {
    /// Starts `count` of them. None if the host's available memory falls by more than the budget.
    fn start(stage: &Stage, entry: &Entry, count: usize, pace: Pace) -> anyhow::Result<Option<Self>> {
        let task = Task::idle();
        let name = if pace == Pace::AtOnce { "parallel" } else { "sequential" };
        let launches = (0..count).map(|number| {
            let id = format!("{}-{name}-{count}-{number}", stage.id());
            entry.contender.launch(stage, &Order::new(&id, &task))
        });
        let launches: Vec<_> = launches.collect::<anyhow::Result<_>>()?;
        let available = available_memory();
        let spent = || u64::try_from(fall_since(available)).is_ok_and(|fall| fall > stage.memory_budget);
        let mut instances = Vec::with_capacity(count);
        let began = Instant::now();
        for launch in launches {
            interrupt::check()?;
            let mut instance = Instance::spawn(launch, stage.timeout)?;
            if pace == Pace::OneAfterAnother {
                instance.line(MARKER)?;
            }
            instances.push(instance);
            if spent() {
                return Ok(None);
            }
        }
        if pace == Pace::AtOnce {
            for instance in &mut instances {
                instance.line(MARKER)?;
                if spent() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(Self { _instances: instances, ms: began.elapsed().as_secs_f64() * 1e3 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn step(instances: usize, memory: u64, host_memory: i64) -> Step {
        Step { instances, memory, host_memory, sequential: 0.0, parallel: 0.0 }
    }

    #[test]
    fn twice_as_many_are_expected_to_take_a_good_twice_as_much() {
        assert_eq!(predict(&step(4, 400 * MIB, 0), 8), 880 * MIB);
    }

    #[test]
    fn what_the_kernel_takes_for_them_counts_as_well() {
        assert_eq!(predict(&step(1, 10 * MIB, 100 * MIB.cast_signed()), 2), 220 * MIB);
    }

    #[test]
    fn memory_that_others_have_freed_meanwhile_makes_none_cheaper() {
        assert_eq!(predict(&step(1, 100 * MIB, -500 * MIB.cast_signed()), 2), 220 * MIB);
    }
}
