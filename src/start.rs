//! Where the C library begins, in place of the start that Rust's standard library has for programs.
//!
//! That one reads `/proc/self/maps` and gives each thread a second stack, so that a stack's overflow is told in words: twenty
//! system calls and more, all before the guest's first instruction. An overflow ends the process without them as well: guard
//! pages are the kernel's and the C library's. What rvmm needs of that start is here.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;

/// What the process ends with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ExitCode(u8);

impl ExitCode {
    /// All went well.
    pub(crate) const SUCCESS: Self = Self(0);
    /// Something failed.
    pub(crate) const FAILURE: Self = Self(1);
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code)
    }
}

/// Has `run` do what the command line asks for, and ends the process.
#[expect(unsafe_code, reason = "the C library calls this, with a command line that has its form")]
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    have_standard_descriptors();
    ignore_broken_pipes();
    let words = (0..usize::try_from(count).unwrap_or(0)).map(|number| {
        // SAFETY: `words` has `count` pointers to strings that stay as long as the process (ISO C, 5.1.2.2.1).
        let word = unsafe { CStr::from_ptr(*words.add(number)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    });
    let argv: Vec<OsString> = words.collect();
    let ExitCode(code) = crate::run(&argv);
    // Not a mere return: what is buffered for standard output is written.
    std::process::exit(code.into())
}

/// Opens `/dev/null` for each of standard input, output and error that is closed: another file, such as a disk, would get its
/// number, and be written to by whatever writes there.
#[expect(unsafe_code, reason = "poll(2) and open(2) for descriptors that nobody owns")]
fn have_standard_descriptors() {
    let poll = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut descriptors = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO].map(poll);
    // SAFETY: the pointer is good for the structures that are announced.
    while unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, 0) } < 0 {
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            std::process::abort();
        }
    }
    for descriptor in descriptors {
        if descriptor.revents & libc::POLLNVAL != 0 {
            // SAFETY: takes a string. The lowest free number is the one that is looked for.
            let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
            if opened != descriptor.fd {
                std::process::abort();
            }
        }
    }
}

/// Has a write to a pipe that nobody reads fail, instead of ending the process.
#[expect(unsafe_code, reason = "signal(2) has no wrapper in the standard library")]
fn ignore_broken_pipes() {
    // SAFETY: no handler runs, and no other thread is there yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
