//! Going to the background: a process of its own, in a session of its own, that tells the one that was started how it went.

use std::cell::Cell;
use std::fs::{self, DirEntry, File};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};

/// Bytes of what is told at most.
const MAX_REPORT: u64 = 64 << 10;
/// What a report begins with: the VM's name follows, or why there is none.
const STARTED: u8 = b'+';
const FAILED: u8 = b'-';

/// Which process this is.
pub(crate) enum Side {
    /// The one that was started.
    Foreground(Started),
    /// The one that is to run the VM.
    Background(Report),
}

/// A process in the background that has been started, and has perhaps not told yet how it went.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its number.
    pub(crate) pid: u32,
    report: PipeReader,
}

impl Started {
    /// Waits until it tells what its VM is called, or why there is none.
    pub(crate) fn wait(self) -> Result<String, String> {
        let mut report = Vec::new();
        let _ = self.report.take(MAX_REPORT).read_to_end(&mut report);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match report.split_first() {
            Some((&STARTED, id)) => Ok(text(id)),
            Some((_, error)) => Err(text(error)),
            None => Err("the VM's process ended before the guest ran".to_owned()),
        }
    }
}

impl AsRawFd for Started {
    /// Readable when it has told.
    fn as_raw_fd(&self) -> RawFd {
        self.report.as_raw_fd()
    }
}

/// Who waits to hear how it went. It is told once.
pub(crate) struct Report(Cell<Option<PipeWriter>>);

impl Report {
    /// The VM `id` is there.
    pub(crate) fn started(&self, id: &str) {
        self.tell(STARTED, id);
    }

    /// There is no VM, because of `error`; false when it was there before.
    pub(crate) fn failed(&self, error: &str) -> bool {
        self.tell(FAILED, error)
    }

    fn tell(&self, kind: u8, text: &str) -> bool {
        let Some(mut pipe) = self.0.take() else { return false };
        // Whoever waited may have been killed; the VM runs all the same.
        let _ = pipe.write_all(&[&[kind], text.as_bytes()].concat());
        true
    }
}

/// Makes a process that goes on here, in the background. No other thread may run yet.
///
/// # Errors
/// What the host said; in the process that called it only.
#[expect(unsafe_code, reason = "fork(2) has no wrapper in the standard library")]
pub(crate) fn fork() -> io::Result<Side> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: this process has no other thread, so the new one finds no lock that somebody else holds.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: takes nothing. It fails for a leader of a process group only, which a new process is not.
            unsafe { libc::setsid() };
            drop(reader);
            let closed = close_inherited(&writer);
            let report = Report(Cell::new(Some(writer)));
            // The caller would take an error for that of the process that called it, and act for it.
            if let Err(error) = closed {
                report.failed(&format!("cannot close inherited descriptors: {error}"));
                std::process::exit(1);
            }
            Ok(Side::Background(report))
        }
        pid => Ok(Side::Foreground(Started { pid: pid.cast_unsigned(), report: reader })),
    }
}

/// Closes all that whoever started rvmm left open, but for standard input, output and error, which have their turn: a lock or
/// the end of a pipe that a script holds would stay as long as the VM.
#[expect(unsafe_code, reason = "close(2) of what nobody owns has no wrapper in the standard library")]
fn close_inherited(report: &PipeWriter) -> io::Result<()> {
    let number = |entry: io::Result<DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    // The list is closed before what is in it, itself included.
    let open: Vec<libc::c_int> = fs::read_dir("/proc/self/fd")?.filter_map(number).collect();
    for descriptor in open {
        if descriptor > libc::STDERR_FILENO && descriptor != report.as_raw_fd() {
            // SAFETY: takes a number. rvmm has opened nothing yet but the pipe, so nobody owns this.
            unsafe { libc::close(descriptor) };
        }
    }
    Ok(())
}

/// Gives the terminal or pipes up that this process was started with.
///
/// # Errors
/// What the host said.
#[expect(unsafe_code, reason = "dup2(2) has no wrapper in the standard library")]
pub(crate) fn close_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for stdio in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: takes two descriptors, of which the first is open; that of the second, if open, nobody owns.
        if unsafe { libc::dup2(null.as_raw_fd(), stdio) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
