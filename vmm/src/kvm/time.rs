//! The host's wall clock, by which a restored guest learns how long it was away.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::KvmError;

/// How long may pass, in nanoseconds, between the two looks at the wall clock around a look at something else.
const CLOSE_TOGETHER: u64 = 100_000;
/// How often a pair of readings is taken anew that was not close together.
const ATTEMPTS: usize = 5;

/// What a guest's clocks make of the time between its save and its restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Elapsed {
    /// They have gone on, as if the guest had run: its wall clock is right at once, and its timers that were due meanwhile
    /// go off.
    #[default]
    Counted,
    /// They go on from where they stopped: no timer goes off early, and the guest's wall clock is behind.
    Left,
}

/// A moment of the host's wall clock, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// This moment; 1970 on a host whose clock is before it.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds from `earlier` on that a guest counts. A wall clock that went back adds nothing.
    pub fn counted_since(self, earlier: Self, elapsed: Elapsed) -> u64 {
        match elapsed {
            Elapsed::Counted => self.0.saturating_sub(earlier.0),
            Elapsed::Left => 0,
        }
    }
}

/// Does `read`, and says when; again when the host did something else in between.
pub(crate) fn timed<T>(mut read: impl FnMut() -> Result<T, KvmError>) -> Result<(T, WallTime), KvmError> {
    let mut attempt = 0;
    loop {
        let before = WallTime::now();
        let value = read()?;
        let took = WallTime::now().0.saturating_sub(before.0);
        attempt += 1;
        if took < CLOSE_TOGETHER || attempt == ATTEMPTS {
            return Ok((value, before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_went_back_adds_nothing() {
        let (early, late) = (WallTime(5), WallTime(1_000_000_005));
        assert_eq!(late.counted_since(early, Elapsed::Counted), 1_000_000_000);
        assert_eq!(early.counted_since(late, Elapsed::Counted), 0);
        assert_eq!(late.counted_since(early, Elapsed::Left), 0);
    }

    #[test]
    fn now_is_the_hosts_time_in_nanoseconds_since_1970() {
        // The kernel gives a new file the same time, a tick late at most.
        let made = tempfile::tempfile().unwrap().metadata().unwrap().modified().unwrap();
        let made = u64::try_from(made.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let now = WallTime::now().0;
        assert!(now.abs_diff(made) < 10_000_000_000, "{now} and {made}");
    }
}
