//! Ctrl-C and its like: the measurement that is under way ends, and what was measured is kept.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// A file has reached the length that this process may give one: writing to it fails, and that is said.
static TOO_LONG: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The signal that came, or 0.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGQUIT, SIGTERM and SIGHUP are noted instead of ending the process. Another one changes nothing: what
/// was started is stopped in any case. A SIGHUP that was ignored, as nohup has it, stays so.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn catch() -> anyhow::Result<()> {
    for signal in caught() {
        let number = usize::try_from(signal).unwrap_or_default();
        signal_hook::flag::register_usize(signal, Arc::clone(&SIGNAL), number)
            .context("signals cannot be caught")?;
    }
    signal_hook::flag::register(SIGXFSZ, Arc::clone(&TOO_LONG)).context("signals cannot be caught")?;
    Ok(())
}

/// The signals that are to be noted.
fn caught() -> Vec<i32> {
    let own = procfs::process::Process::myself().and_then(|own| own.status());
    let hangup_is_ignored = own.is_ok_and(|status| status.sigign & (1 << (SIGHUP - 1)) != 0);
    let mut signals = vec![SIGINT, SIGQUIT, SIGTERM, SIGHUP];
    signals.retain(|&signal| signal != SIGHUP || !hangup_is_ignored);
    signals
}

/// The same, and has the first of these signals do `also`, on a thread of its own.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn catch_and(also: fn()) -> anyhow::Result<()> {
    // Asked for first: a signal that is caught is not ignored any more.
    let caught = caught();
    catch()?;
    let mut signals = Signals::new(caught).context("signals cannot be caught")?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            also();
        }
    });
    Ok(())
}

/// The signal that wants the benchmark to end.
fn signal() -> Option<i32> {
    i32::try_from(SIGNAL.load(Ordering::Relaxed)).ok().filter(|&signal| signal != 0)
}

/// Whether it is time to end.
pub(crate) fn came() -> bool {
    signal().is_some()
}

/// An error when it is time to end.
///
/// # Errors
/// A signal has come.
pub(crate) fn check() -> anyhow::Result<()> {
    if let Some(signal) = signal() {
        let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
        bail!("interrupted by {name}");
    }
    Ok(())
}

/// The exit code of a comparison: as a shell has it after that signal.
pub(crate) fn exit_code() -> ExitCode {
    signal().and_then(|signal| u8::try_from(128 + signal).ok()).map_or(ExitCode::SUCCESS, ExitCode::from)
}
