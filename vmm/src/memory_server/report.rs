//! What became of a VM whose memory was served.

use std::time::Duration;

use serde::Serialize;

/// What a VM was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How often somebody waited for a page.
    pub(super) faults: u64,
    /// Bytes of the snapshot that were given for them.
    pub(super) asked: u64,
    /// Bytes of the working set that were sent before somebody waited for them.
    pub(super) ahead: u64,
    /// Bytes of zeroes that were given, which take no memory.
    pub(super) zeroes: u64,
    /// Bytes that the VM gave back.
    pub(super) removed: u64,
    /// The time that giving pages took, without sending ahead.
    pub(super) busy: Duration,
}

/// A VM that is not served any more, as a JSON object.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its process.
    pub pid: Option<u32>,
    /// Seconds from its first to its last word.
    pub seconds: f64,
    /// Faults that were answered.
    pub faults: u64,
    /// Microseconds that answering them took in all, each from being read to waking who waits.
    pub busy_us: u64,
    /// Bytes that were asked for.
    pub asked_bytes: u64,
    /// Bytes that were sent ahead.
    pub ahead_bytes: u64,
    /// Bytes of zeroes.
    pub zero_bytes: u64,
    /// Bytes that the VM gave back.
    pub removed_bytes: u64,
    /// Ranges of the working set that were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<usize>,
    /// Why it could not be served any more; nothing if it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    /// The VM of process `pid` was there for that long.
    pub(super) fn new(pid: Option<u32>, lived: Duration) -> Self {
        Self { pid, seconds: lived.as_secs_f64(), ..Self::default() }
    }

    /// And was given this.
    pub(super) fn count(&mut self, counts: &Counts) {
        let Counts { faults, asked, ahead, zeroes, removed, busy } = *counts;
        self.faults = faults;
        self.busy_us = busy.as_micros() as u64;
        self.asked_bytes = asked;
        self.ahead_bytes = ahead;
        self.zero_bytes = zeroes;
        self.removed_bytes = removed;
    }
}
