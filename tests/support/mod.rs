//! What the tests are written in: bare guests, running them, disks, terminals.

pub(crate) mod api;
mod assemble;
pub(crate) mod bare;
pub(crate) mod bench;
pub(crate) mod disk;
mod ended;
pub(crate) mod kvm;
pub(crate) mod namespace;
mod output;
pub(crate) mod process;
mod rvmm;
pub(crate) mod terminal;

pub(crate) use ended::Ended;
pub(crate) use rvmm::{Running, Rvmm};

use std::time::{Duration, Instant};

/// The longest that a test waits for anything: generous, since nothing is timed here.
pub(crate) fn timeout() -> Duration {
    let seconds = std::env::var("RVMM_TEST_TIMEOUT").ok().and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Polls until `done` holds; says whether it ever did.
pub(crate) fn poll(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > timeout() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
