//! Notices that the socket's file is removed or moved: from then on no host program finds it, which somebody should know.
#![expect(unsafe_code, reason = "inotify(7)")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::stream::to_result;

/// A watch on one file, which can be ended and set anew. The descriptor stays: the kernel takes some 10 ms to close one that
/// has watched something, and a driver that resets its device must not make the host wait for that.
#[derive(Debug)]
pub(super) struct FileWatch {
    events: File,
    /// The kernel's number of the watch, if there is one.
    number: Option<libc::c_int>,
}

impl FileWatch {
    /// A watch on no file yet.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        to_result(fd)?;
        // SAFETY: the kernel just made this descriptor, and nobody else has it.
        Ok(Self { events: unsafe { File::from_raw_fd(fd) }, number: None })
    }

    /// Watches the file at `path`.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn start(&mut self, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // A socket that is open loses its name and not its inode, which is a change of its link count.
        let changes = libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_DELETE_SELF | libc::IN_DONT_FOLLOW;
        // SAFETY: the kernel reads `path`, which ends with a zero byte.
        let number = unsafe { libc::inotify_add_watch(self.events.as_raw_fd(), path.as_ptr(), changes) };
        to_result(number)?;
        self.number = Some(number);
        Ok(())
    }

    /// Watches nothing any more.
    pub(super) fn stop(&mut self) {
        if let Some(number) = self.number.take() {
            // SAFETY: no memory is passed. It fails if the file has gone, which ends a watch as well.
            unsafe { libc::inotify_rm_watch(self.events.as_raw_fd(), number) };
            // That its watch has ended is an event.
            self.clear();
        }
    }

    /// Forgets what was noticed so far, so that the descriptor is readable only when more is.
    pub(super) fn clear(&mut self) {
        let mut events = [0; 4096];
        while self.events.read(&mut events).is_ok_and(|count| count > 0) {}
    }
}

impl AsRawFd for FileWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }
}
