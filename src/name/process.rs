//! The process of a VM, held by a descriptor: a number may be another process's by the time that it is used.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// A process of this host.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Process {
    /// The process that has the number `pid` now.
    ///
    /// # Errors
    /// What pidfd_open(2) said; ESRCH when there is none.
    #[expect(unsafe_code, reason = "pidfd_open(2) has no wrapper")]
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: takes two integers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: pidfd_open returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal; to a process that has ended, none.
    ///
    /// # Errors
    /// What pidfd_send_signal(2) said.
    #[expect(unsafe_code, reason = "pidfd_send_signal(2) has no wrapper")]
    pub(crate) fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let (fd, info) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: takes integers, and a null pointer for the information that kill(2) would send.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Waits for its end, no longer than `patience`; whether it has ended.
    ///
    /// # Errors
    /// What poll(2) said.
    #[expect(unsafe_code, reason = "poll(2) has no wrapper in the standard library")]
    pub(crate) fn wait(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now().checked_add(patience);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| left.as_millis().try_into().ok()).unwrap_or(libc::c_int::MAX);
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: the pointer is good for the one structure that is announced.
            match unsafe { libc::poll(&raw mut poll, 1, left) } {
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_signalled_and_its_end_seen() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.wait(Duration::from_millis(10)).unwrap());
        process.signal(libc::SIGTERM).unwrap();
        assert!(process.wait(Duration::from_secs(30)).unwrap());
        child.wait().unwrap();
        process.signal(libc::SIGTERM).unwrap();
    }
}
