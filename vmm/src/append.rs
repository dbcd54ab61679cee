//! Files and named pipes to which lines are appended: the log, the metrics. None of them is ever waited for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a file to append to, or makes it. Neither opening nor writing waits for the reader of a named pipe: without one
/// yet, lines stay in the pipe; when it is full, writes fail.
///
/// # Errors
/// What the host said.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(path) {
        // fifo(7): a pipe without a reader can't be opened for writing alone.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            options.read(true).create(false).open(path)
        }
        result => result,
    }
}
