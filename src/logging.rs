//! The log: one line for each record, on stderr or in a file.
//!
//! `2026-01-31T12:00:00.123Z web WARN vmm::boot: the message`: the time (RFC 3339, UTC), the VM's name, the level, the
//! module and the message. A line is one `write` of at most [`LINE_MAX`] bytes, so lines of several processes that
//! share a file or pipe do not mix, and its text is escaped, so no guest can drive the terminal that it is read on.
//!
//! This is our own rather than env_logger or fern because it is on the way to the guest's first instruction: starting
//! it allocates nothing but the file, and filters are one level.

mod timestamp;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};
use vmm::append;

use crate::escape::Escape;
use timestamp::Timestamp;

/// Bytes of a line, newline included: what Linux writes to a pipe in one piece (`PIPE_BUF`, pipe(7)). It also bounds
/// what a guest can make rvmm allocate here. The rest of a longer line is dropped.
const LINE_MAX: usize = 4096;

/// How long a line waits for the reader of stderr.
const PATIENCE: Duration = Duration::from_millis(100);

/// How to log.
pub(crate) struct Settings<'a> {
    /// Records of this level and the more severe ones are written.
    pub(crate) level: LevelFilter,
    /// The VM's name, which is part of each line.
    pub(crate) id: &'a str,
    /// Where lines are appended; stderr when there is none.
    pub(crate) file: Option<&'a Path>,
}

/// Starts logging; to be called once. The error names the file that cannot be opened.
pub(crate) fn start(settings: &Settings<'_>) -> Result<(), String> {
    static LOGGER: OnceLock<Logger> = OnceLock::new();

    let sink = match settings.file {
        None => Sink::Stderr,
        Some(path) => Sink::File(
            append::open(path)
                .map_err(|error| format!("cannot open the log file {}: {error}", path.display()))?,
        ),
    };
    let logger = LOGGER.get_or_init(|| Logger {
        sink,
        id: settings.id.to_owned(),
        level: settings.level,
        lost: 0.into(),
    });
    log::set_logger(logger).map_err(|error| error.to_string())?;
    log::set_max_level(settings.level);
    Ok(())
}

/// Waits until `output` takes a line, and fails if it does not: what logs may be the thread that has to hear a signal.
#[expect(unsafe_code, reason = "poll(2) has no wrapper in the standard library")]
fn wait_for_room(output: &impl AsFd, patience: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: output.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let patience = patience.as_millis().try_into().unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer is good for the one structure that is announced.
    match unsafe { libc::poll(&raw mut poll, 1, patience) } {
        0 => Err(io::ErrorKind::TimedOut.into()),
        // Interrupted, for one: a vCPU that is to stop.
        -1 => Err(io::Error::last_os_error()),
        // Of an error of the output, the write tells.
        _ => Ok(()),
    }
}

struct Logger {
    sink: Sink,
    id: String,
    level: LevelFilter,
    /// Lines that could not be written since the last one that could.
    lost: AtomicU64,
}

enum Sink {
    Stderr,
    File(File),
}

impl Logger {
    fn line(&self, level: log::Level, target: &str, message: fmt::Arguments<'_>) -> Line {
        let mut line = Line::default();
        let now = Timestamp(SystemTime::now());
        // An error here means that the line is full.
        let _ = write!(Escape(&mut line), "{now} {} {level} {target}: {message}", self.id);
        line.0.push('\n');
        line
    }

    /// How long a line may wait for a slow reader: not again once one waited in vain.
    fn patience(&self) -> Duration {
        if self.lost.load(Ordering::Relaxed) == 0 { PATIENCE } else { Duration::ZERO }
    }

    fn write(&self, line: &Line) -> io::Result<()> {
        match &self.sink {
            Sink::Stderr => wait_for_room(&io::stderr(), self.patience())
                .and_then(|()| io::stderr().write_all(line.0.as_bytes())),
            Sink::File(file) => (&mut &*file).write_all(line.0.as_bytes()),
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let note =
                self.line(log::Level::Warn, module_path!(), format_args!("{lost} lines were lost here"));
            if self.write(&note).is_err() {
                self.lost.fetch_add(lost.saturating_add(1), Ordering::Relaxed);
                return;
            }
        }
        if self.write(&self.line(record.level(), record.target(), *record.args())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Text that stops growing one byte below [`LINE_MAX`].
#[derive(Default)]
struct Line(String);

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (LINE_MAX - 1).saturating_sub(self.0.len());
        let fitting =
            (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        self.0.push_str(text.get(..fitting).unwrap_or_default());
        if fitting < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
