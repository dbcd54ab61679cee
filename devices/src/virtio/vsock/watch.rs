//! Notices that the socket's file is removed or moved: from then on no host program finds it, which somebody should know.
#![expect(unsafe_code, reason = "inotify(7)")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::stream::to_result;

/// A watch on one file.
#[derive(Debug)]
pub(super) struct FileWatch(File);

impl FileWatch {
    /// Watches the file at `path`.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        to_result(fd)?;
        // SAFETY: the kernel just made this descriptor, and nobody else has it.
        let watch = Self(unsafe { File::from_raw_fd(fd) });
        // A socket that is open loses its name and not its inode, which is a change of its link count.
        let changes = libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_DELETE_SELF | libc::IN_DONT_FOLLOW;
        // SAFETY: the kernel reads `path`, which ends with a zero byte.
        to_result(unsafe { libc::inotify_add_watch(fd, path.as_ptr(), changes) })?;
        Ok(watch)
    }

    /// Forgets what was noticed so far, so that the descriptor is readable only when more is.
    pub(super) fn clear(&mut self) {
        let mut events = [0; 4096];
        while self.0.read(&mut events).is_ok_and(|count| count > 0) {}
    }
}

impl AsRawFd for FileWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
