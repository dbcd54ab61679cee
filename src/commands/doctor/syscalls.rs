//! System calls that are only asked whether they are there; whatever they open is closed at once.
#![expect(unsafe_code, reason = "libc has no safe form of these calls")]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Which page faults a userfaultfd is to get.
#[derive(Clone, Copy, Debug)]
pub(super) enum Faults {
    /// Those in the kernel too, such as KVM's on guest memory.
    All,
    /// `UFFD_USER_MODE_ONLY`: what an unprivileged process may have.
    OfUserMode,
}

/// userfaultfd(2)
pub(super) fn userfaultfd(faults: Faults) -> io::Result<()> {
    /// linux/userfaultfd.h
    const UFFD_USER_MODE_ONLY: i32 = 1;
    let flags = libc::O_CLOEXEC
        | match faults {
            Faults::All => 0,
            Faults::OfUserMode => UFFD_USER_MODE_ONLY,
        };
    // SAFETY: userfaultfd takes flags and no pointer.
    close(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
}

/// io_uring_setup(2), with one entry.
pub(super) fn io_uring() -> io::Result<()> {
    /// `sizeof(struct io_uring_params)`, linux/io_uring.h
    const PARAMS_BYTES: usize = 120;
    let mut params = [0_u64; PARAMS_BYTES / 8];
    // SAFETY: the array has the size and alignment of io_uring_params, is zero as the call demands, and outlives it.
    close(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) })
}

/// prctl(2), `PR_GET_SECCOMP`
pub(super) fn seccomp() -> io::Result<()> {
    // SAFETY: this option takes no pointer. (In strict mode it would kill, but a process in strict mode can't exec.)
    if unsafe { libc::prctl(libc::PR_GET_SECCOMP) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes what a system call opened, or tells why it did not.
fn close(result: libc::c_long) -> io::Result<()> {
    let fd = i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just handed out this descriptor and nothing else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
