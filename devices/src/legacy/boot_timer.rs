//! Firecracker's boot timer: a guest that has booted writes a byte, and the log says how long it took.
//!
//! The line is Firecracker's, for what reads it there: wall time and the process's CPU time since the VM was asked to
//! start, in microseconds and milliseconds. Reads are zeroes. A guest has one line of the log, not as many as it likes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use crate::bus::{BusAction, BusDevice};
use crate::clock;

/// What a guest writes that has booted.
const BOOTED: u8 = 123;

const NS_PER_US: u64 = 1000;

/// Boots of which the log tells at any level, in the life of this process.
const MAX_TOLD: u32 = 64;
static BOOTS: AtomicU32 = AtomicU32::new(0);

/// A moment by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall_ns: u64,
    cpu_ns: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { wall_ns: clock::monotonic(), cpu_ns: clock::process_cpu() }
    }
}

/// One register of a byte.
#[derive(Debug)]
pub struct BootTimer {
    start: Moment,
    told: AtomicBool,
}

/// What a snapshot keeps of the timer. When it began means nothing to another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTimerStateV1 {
    /// The log has its line.
    pub told: bool,
}

impl BootTimer {
    /// The state of the timer.
    pub fn save(&self) -> BootTimerStateV1 {
        BootTimerStateV1 { told: self.told.load(Ordering::Relaxed) }
    }

    /// Takes the state of a timer that was saved: a guest that has told of its boot does not tell again.
    pub fn restore(&self, state: &BootTimerStateV1) {
        let BootTimerStateV1 { told } = *state;
        self.told.store(told, Ordering::Relaxed);
    }

    /// A timer that runs since `start`.
    pub fn new(start: Moment) -> Self {
        Self { start, told: AtomicBool::new(false) }
    }
}

impl BusDevice for BootTimer {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) -> BusAction {
        if (offset, data) == (0, &[BOOTED]) && !self.told.swap(true, Ordering::Relaxed) {
            // It was asked for, so it is told also where the log has warnings only; not of a guest that restarts for ever.
            let first = BOOTS.load(Ordering::Relaxed) < MAX_TOLD;
            BOOTS.fetch_add(u32::from(first), Ordering::Relaxed);
            let shown = !first || log::log_enabled!(log::Level::Info);
            let level = if shown { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "{}", line(self.start, Moment::now()));
        }
        BusAction::None
    }
}

fn line(start: Moment, booted: Moment) -> String {
    let wall = booted.wall_ns.saturating_sub(start.wall_ns) / NS_PER_US;
    let cpu = booted.cpu_ns.saturating_sub(start.cpu_ns) / NS_PER_US;
    format!("Guest-boot-time = {wall:>6} us {} ms, {cpu:>6} CPU us {} CPU ms", wall / 1000, cpu / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_microseconds_and_milliseconds() {
        let start = Moment { wall_ns: 7, cpu_ns: 1_000_000 };
        let booted = Moment { wall_ns: 12_345_007, cpu_ns: 3_999_000 };
        assert_eq!(line(start, booted), "Guest-boot-time =  12345 us 12 ms,   2999 CPU us 2 CPU ms");
        assert_eq!(line(booted, start), "Guest-boot-time =      0 us 0 ms,      0 CPU us 0 CPU ms");
    }

    #[test]
    fn only_the_right_byte_at_the_right_place_counts_and_only_once() {
        let timer = BootTimer::new(Moment::now());
        let told = |offset, data: &[u8]| {
            assert_eq!(timer.write(offset, data), BusAction::None);
            timer.told.load(Ordering::Relaxed)
        };
        for (offset, data) in [(0, &[122][..]), (1, &[123]), (0, &[123, 0]), (0, &[]), (u64::MAX, &[123])] {
            assert!(!told(offset, data), "{offset} {data:?}");
        }
        assert!(told(0, &[123]));
        assert!(told(0, &[123]));
        let restored = BootTimer::new(Moment::now());
        restored.restore(&timer.save());
        assert!(restored.told.load(Ordering::Relaxed), "nor after a restore");
        let mut data = [0xaa; 3];
        timer.read(0, &mut data);
        assert_eq!(data, [0; 3]);
    }
}
