//! Ctrl-C and its like: the measurement that is under way ends, and what was measured is kept.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP are noted instead of ending the process; the second one ends the wait of the first's
/// clean-up no sooner: everything that was started is stopped in any case.
pub(crate) fn catch() -> anyhow::Result<()> {
    catch_and(|| {})
}

/// The same, and has the first of these signals do `also`, on a thread of its own.
pub(crate) fn catch_and(also: fn()) -> anyhow::Result<()> {
    let note = move || {
        if !INTERRUPTED.swap(true, Ordering::Relaxed) {
            also();
        }
    };
    ctrlc::set_handler(note).context("signals cannot be caught")
}

/// Whether it is time to end.
pub(crate) fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error when it is time to end.
pub(crate) fn check() -> anyhow::Result<()> {
    if came() {
        bail!("interrupted by a signal");
    }
    Ok(())
}

/// The exit code of a comparison.
pub(crate) fn exit_code() -> ExitCode {
    if came() { ExitCode::from(130) } else { ExitCode::SUCCESS }
}
