//! The terminal that rvmm was started on: raw while the guest has it, and as it was however rvmm ends.
//!
//! A process in the background that changes a terminal's modes or reads from it is stopped by SIGTTOU or SIGTTIN, for
//! ever if nobody brings it back. So rvmm ignores both signals and touches the terminal only in the foreground.

use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Modes from before rvmm changed them. Written once; the fatal-signal handler reads it.
static ORIGINAL: OnceLock<libc::termios> = OnceLock::new();
/// The terminal is raw now.
static RAW: AtomicBool = AtomicBool::new(false);

/// Standard input, when it is a terminal.
pub struct Terminal(());

impl Terminal {
    /// The terminal on standard input, with its modes remembered and restored should rvmm crash. `None` when standard
    /// input is something else.
    pub fn on_stdin() -> Option<Self> {
        let modes = get_modes().ok()?;
        ORIGINAL.get_or_init(|| modes);
        ignore(libc::SIGTTOU);
        ignore(libc::SIGTTIN);
        for signal in [libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV] {
            restore_on(signal);
        }
        Some(Self(()))
    }

    /// Whether rvmm may read from the terminal and change its modes.
    #[expect(unsafe_code, reason = "tcgetpgrp(3) has no wrapper in the standard library")]
    pub fn is_foreground(&self) -> bool {
        // SAFETY: both take and return integers.
        unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp() }
    }

    /// Columns and rows, if the terminal knows them.
    #[expect(unsafe_code, reason = "ioctl(2) has no wrapper in the standard library")]
    pub fn size(&self) -> Option<(u16, u16)> {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCGWINSZ writes one `winsize` to the pointer, which is good for it.
        let result = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, &raw mut size) };
        (result == 0).then_some((size.ws_col, size.ws_row))
    }

    /// Has signals that end the process restore the terminal first; for a process that does not take them as events.
    pub fn restore_when_ended(&self) {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            restore_on(signal);
        }
    }

    /// Gives every key to the guest, when rvmm is in the foreground; whether it is.
    pub fn make_raw(&self) -> bool {
        let Some(original) = ORIGINAL.get().filter(|_| self.is_foreground()) else { return false };
        let mut modes = *original;
        modes.c_iflag &= !(libc::BRKINT
            | libc::ICRNL
            | libc::INLCR
            | libc::IGNCR
            | libc::INPCK
            | libc::ISTRIP
            | libc::IXON);
        modes.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::IEXTEN | libc::ISIG);
        modes.c_cc[libc::VMIN] = 1;
        modes.c_cc[libc::VTIME] = 0;
        // Output is processed as before: log lines and errors of rvmm still start at the left margin.
        RAW.store(true, Ordering::SeqCst);
        if let Err(error) = set_modes(&modes) {
            log::warn!("the terminal's modes cannot be changed: {error}");
        }
        true
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as rvmm found it. Safe to call at any time, from a signal handler too.
pub fn restore() {
    if RAW.swap(false, Ordering::SeqCst)
        && let Some(original) = ORIGINAL.get()
    {
        let _ = set_modes(original);
    }
}

#[expect(unsafe_code, reason = "tcgetattr(3) has no wrapper in the standard library")]
fn get_modes() -> io::Result<libc::termios> {
    let mut modes = MaybeUninit::uninit();
    // SAFETY: `modes` is a valid place for one `termios`.
    match unsafe { libc::tcgetattr(libc::STDIN_FILENO, modes.as_mut_ptr()) } {
        // SAFETY: tcgetattr succeeded, so it filled `modes` in.
        0 => Ok(unsafe { modes.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "tcsetattr(3) has no wrapper in the standard library")]
fn set_modes(modes: &libc::termios) -> io::Result<()> {
    // SAFETY: `modes` is a valid `termios`; tcsetattr is async-signal-safe.
    match unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, modes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "signal(2) has no wrapper in the standard library")]
fn ignore(signal: libc::c_int) {
    // SAFETY: SIG_IGN is a valid disposition for both signals that this is called with.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Restores the terminal when `signal` is about to end the process.
#[expect(unsafe_code, reason = "sigaction(2) has no wrapper in the standard library")]
fn restore_on(signal: libc::c_int) {
    extern "C" fn handler(signal: libc::c_int) {
        restore();
        // SAFETY: raise is async-signal-safe; SA_RESETHAND has put the default action back, which ends the process
        // once the handler returns and the signal is no longer blocked.
        unsafe { libc::raise(signal) };
    }
    // SAFETY: all zeros is a valid `sigaction`: an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
    // SAFETY: `action` is valid, and the handler calls only what is async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}
