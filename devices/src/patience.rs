//! Waiting for what a process that is about to end still has.

use std::thread;
use std::time::{Duration, Instant};

/// How long is waited. A VM that was killed gives its sockets, disks and taps up some 20 ms later, when KVM has removed it, and
/// later on a busy host.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long between two attempts.
const INTERVAL: Duration = Duration::from_millis(10);

/// What `attempt` gives, which is tried again for half a second while it fails with something that `is_in_use`.
///
/// # Errors
/// Those of the last attempt.
pub fn while_in_use<T, E>(
    is_in_use: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error) if is_in_use(&error) && Instant::now() < end => thread::sleep(INTERVAL),
            other => return other,
        }
    }
}
