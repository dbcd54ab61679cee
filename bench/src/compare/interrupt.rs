//! Ctrl-C and its like: the measurement that is under way ends, and what was measured is kept.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// The signal that came, or 0.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGQUIT, SIGTERM and SIGHUP are noted instead of ending the process. Another one changes nothing: what
/// was started is stopped in any case. A SIGHUP that was ignored, as nohup has it, stays so.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn catch() -> anyhow::Result<()> {
    let ignored =
        procfs::process::Process::myself().and_then(|own| own.status()).map_or(0, |status| status.sigign);
    for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP] {
        if signal == SIGHUP && ignored & (1 << (SIGHUP - 1)) != 0 {
            continue;
        }
        let number = usize::try_from(signal).unwrap_or_default();
        signal_hook::flag::register_usize(signal, Arc::clone(&SIGNAL), number)
            .context("signals cannot be caught")?;
    }
    Ok(())
}

/// The signal that wants the benchmark to end.
fn came() -> Option<i32> {
    i32::try_from(SIGNAL.load(Ordering::Relaxed)).ok().filter(|&signal| signal != 0)
}

/// An error when it is time to end.
///
/// # Errors
/// A signal has come.
pub(crate) fn check() -> anyhow::Result<()> {
    if let Some(signal) = came() {
        let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
        bail!("interrupted by {name}");
    }
    Ok(())
}

/// The exit code of a comparison: as a shell has it after that signal.
pub(crate) fn exit_code() -> ExitCode {
    came().and_then(|signal| u8::try_from(128 + signal).ok()).map_or(ExitCode::SUCCESS, ExitCode::from)
}
