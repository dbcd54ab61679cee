//! Memory of one instance that does nothing.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use procfs::process::{MMPermissions, MMapPath, MemoryMap, MemoryMaps, Process};

use crate::report::Progress;
use crate::results::{Kind, Memory, ProcessMemory};

use super::contender::{Entry, Order, taking_part};
use super::instance::Instance;
use super::stage::Stage;
use super::task::{MARKER, Task};
use super::{interrupt, tree};

/// How long an instance idles before its memory is read.
const IDLE: Duration = Duration::from_secs(5);

/// How much of a guest's memory a region has at least, in hundredths, that is taken for it: a VMM may leave out holes.
const MOST_OF_IT: u64 = 90;

/// Reads the memory of one idle instance of each contender.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(crate) fn measure(stage: &Stage, entries: &mut [Entry]) -> anyhow::Result<()> {
    let progress = Progress::phase("memory", taking_part(entries));
    for entry in entries.iter_mut().filter(|entry| entry.takes_part) {
        progress.tick(&entry.result.title);
        let memory = once(stage, entry);
        tree::clear();
        interrupt::check()?;
        match memory {
            Ok(memory) => entry.result.memory = Some(memory),
            Err(error) => entry.fail("memory", &error),
        }
    }
    Ok(())
}

fn once(stage: &Stage, entry: &Entry) -> anyhow::Result<Memory> {
    let id = format!("{}-memory", stage.id());
    let mut instance = Instance::start(stage, entry, &Order::new(&id, &Task::idle()))?;
    instance.line(MARKER)?;
    rest(IDLE)?;
    let guest = (entry.result.kind == Kind::MicroVm).then(|| stage.guest_memory());
    of_descendants(guest)
}

/// Lets time pass.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(super) fn rest(time: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Memory of all processes that descend from this one; that of guests is told apart if each has `guest` bytes.
///
/// # Errors
/// There is none, or the memory of one cannot be read.
pub(super) fn of_descendants(guest: Option<u64>) -> anyhow::Result<Memory> {
    let mut memory = Memory { total: 0, guest: 0, processes: Vec::new() };
    for process in tree::descendants() {
        let Ok(stat) = process.stat() else { continue };
        if stat.state == 'Z' {
            continue;
        }
        let name = stat.comm;
        let pss = pss(&process).with_context(|| format!("memory of the process {name} cannot be read"))?;
        if let Some(guest) = guest {
            memory.guest += of_guest(&process, guest)?;
        }
        memory.total += pss;
        memory.processes.push(ProcessMemory { name, pss });
    }
    if memory.processes.is_empty() {
        bail!("it has no process");
    }
    memory.processes.sort_by(|one, other| other.pss.cmp(&one.pss).then_with(|| one.name.cmp(&other.name)));
    Ok(memory)
}

/// Proportional set size of a process, in bytes.
pub(super) fn pss(process: &Process) -> anyhow::Result<u64> {
    let rollup = process.smaps_rollup()?;
    Ok(rollup.memory_map_rollup.iter().map(proportional).sum())
}

fn proportional(map: &MemoryMap) -> u64 {
    map.extension.map.get("Pss").copied().unwrap_or(0)
}

/// What a process has of guests of `size` bytes each: its mappings of so much memory, or several without a gap between them that
/// make it up. A guest that was restored has some of its file and some of nothing.
fn of_guest(process: &Process, size: u64) -> anyhow::Result<u64> {
    Ok(guest_part(&process.smaps()?, size))
}

fn guest_part(maps: &MemoryMaps, size: u64) -> u64 {
    regions(maps)
        .into_iter()
        .filter(|region| region.size >= size / 100 * MOST_OF_IT)
        .map(|region| region.pss)
        .sum()
}

/// Mappings without a gap between them.
#[derive(Debug)]
struct Region {
    end: u64,
    size: u64,
    pss: u64,
}

/// Mappings that can be read and written, those in one that follow one another.
fn regions(maps: &MemoryMaps) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    let writable = MMPermissions::READ | MMPermissions::WRITE;
    for map in maps.into_iter().filter(|map| map.perms.contains(writable) && map.pathname != MMapPath::Heap) {
        let (start, end) = map.address;
        match regions.last_mut() {
            Some(last) if last.end == start => {
                last.end = end;
                last.size += end - start;
                last.pss += proportional(map);
            }
            _ => regions.push(Region { end, size: end - start, pss: proportional(map) }),
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

    use procfs::FromRead as _;

    use super::*;

    /// Mappings as the kernel lists them, with their proportional set size in KiB.
    fn maps(list: &[(&str, u64)]) -> MemoryMaps {
        let text: Vec<_> = list.iter().map(|(line, pss)| format!("{line} \nPss: {pss} kB\n")).collect();
        MemoryMaps::from_read(text.concat().as_bytes()).unwrap()
    }

    fn guests(list: &[(&str, u64)], size: u64) -> u64 {
        guest_part(&maps(list), size)
    }

    #[test]
    fn the_mapping_of_a_guests_size_is_its_memory() {
        let list = [
            ("400000-500000 rw-p 00000000 00:00 0", 7),
            ("7f0000000000-7f0008000000 rw-p 00000000 00:00 0", 1000),
            ("7f0009000000-7f0009800000 rw-p 00000000 00:00 0", 9),
        ];
        assert_eq!(guests(&list, 128 << 20), 1000 << 10);
    }

    #[test]
    fn mappings_that_follow_one_another_make_it_up() {
        let list = [
            ("7f0000000000-7f0004000000 rw-p 00000000 00:01 42 /snapshot/memory", 600),
            ("7f0004000000-7f0008000000 rw-p 00000000 00:00 0", 500),
            ("7f0008000000-7f0009000000 r--p 00000000 00:00 0", 3),
        ];
        assert_eq!(guests(&list, 128 << 20), 1100 << 10);
    }

    #[test]
    fn what_cannot_be_written_or_is_smaller_is_no_guest() {
        let list = [
            ("7f0000000000-7f0010000000 ---p 00000000 00:00 0", 0),
            ("7f0020000000-7f0024000000 rw-p 00000000 00:00 0", 70),
        ];
        assert_eq!(guests(&list, 128 << 20), 0);
    }
}
