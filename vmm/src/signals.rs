//! Signals as events: blocked in every thread and read from a descriptor, so that nothing is interrupted half-way.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Signals that end the VM cleanly.
const TERMINATING: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// End the VM; the signal's number.
    Terminate(i32),
    /// SIGTSTP: stop the process until SIGCONT.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGWINCH: the terminal has another size.
    Resize,
}

/// The signals that rvmm handles, as a readable descriptor.
pub(crate) struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the signals in this thread and in those that it starts from now on.
    ///
    /// # Errors
    /// What the host said.
    #[expect(unsafe_code, reason = "signalfd(2) has no wrapper in the standard library")]
    pub(crate) fn block() -> io::Result<Self> {
        let mask = mask();
        change_mask(libc::SIG_BLOCK, &mask)?;
        // A guest that writes to its disk past a limit on the size of files gets an error, not the process a signal.
        // SAFETY: SIG_IGN is a valid disposition for this signal.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        // Whoever started rvmm may ignore SIGCHLD, and then no child can be waited for.
        // SAFETY: SIG_DFL is a valid disposition for this signal.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        // SAFETY: the set is valid; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const mask, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that arrived, if any.
    #[expect(unsafe_code, reason = "reads a C structure from a descriptor")]
    pub(crate) fn read(&self) -> Option<Signal> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` is a valid place for `size` bytes.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(read) != Ok(size) {
            return None;
        }
        // SAFETY: the kernel filled in all of `info`, a structure of integers.
        let number = unsafe { info.assume_init() }.ssi_signo.cast_signed();
        Some(match number {
            libc::SIGTSTP => Signal::Stop,
            libc::SIGCONT => Signal::Continue,
            libc::SIGWINCH => Signal::Resize,
            number => Signal::Terminate(number),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Lets signals end this process again, when there is no VM any more that they would end: what the process still has to
/// say may go to a pipe that nobody reads.
pub fn unblock() {
    // Fails only for a `how` that is none.
    let _ = change_mask(libc::SIG_UNBLOCK, &mask());
}

/// The signals that rvmm handles.
#[expect(unsafe_code, reason = "sigemptyset(3) has no wrapper in the standard library")]
fn mask() -> libc::sigset_t {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: `mask` is a valid place for a signal set, which sigemptyset fills in before anything reads it, and
    // every number is that of a signal.
    unsafe {
        libc::sigemptyset(mask.as_mut_ptr());
        for signal in TERMINATING.into_iter().chain([libc::SIGTSTP, libc::SIGCONT, libc::SIGWINCH]) {
            libc::sigaddset(mask.as_mut_ptr(), signal);
        }
        mask.assume_init()
    }
}

#[expect(unsafe_code, reason = "pthread_sigmask(3) has no wrapper in the standard library")]
fn change_mask(how: libc::c_int, mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is valid, and the old one is not asked for.
    match unsafe { libc::pthread_sigmask(how, mask, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Stops this process, as SIGTSTP would have.
#[expect(unsafe_code, reason = "kill(2) has no wrapper in the standard library")]
pub(crate) fn stop_process() {
    // SAFETY: sends a signal to this very process.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}
