//! The monotonic clock, and a descriptor that becomes readable at a moment of it.
#![expect(unsafe_code, reason = "timerfd_create(2), timerfd_settime(2)")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};

pub(crate) use super::bucket::Nanos;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A timer that is not armed at first.
#[derive(Debug)]
pub(crate) struct Timer(File);

impl Timer {
    /// # Errors
    /// When the host has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was made above and belongs to nobody else.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes the descriptor readable from `at` on, at once when that is past.
    pub(crate) fn arm(&self, at: Nanos) {
        // A time of 0 would disarm.
        self.set(at.max(1));
    }

    /// The descriptor is not readable, and will not become so.
    pub(crate) fn disarm(&self) {
        self.set(0);
    }

    /// Empties the descriptor. Nothing to read is fine.
    pub(crate) fn empty(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }

    fn set(&self, at: Nanos) {
        let second = |nanos: u64| libc::timespec {
            tv_sec: libc::time_t::try_from(nanos / NS_PER_SECOND).unwrap_or(libc::time_t::MAX),
            tv_nsec: (nanos % NS_PER_SECOND).cast_signed(),
        };
        let setting = libc::itimerspec { it_interval: second(0), it_value: second(at) };
        // SAFETY: the kernel reads one `itimerspec`, which lives for the call. It refuses only what is no time or no timer.
        unsafe {
            libc::timerfd_settime(
                self.fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const setting,
                std::ptr::null_mut(),
            )
        };
    }
}
