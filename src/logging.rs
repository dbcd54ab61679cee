//! The log: one line for each record, on stderr or in a file.
//!
//! `2026-01-31T12:00:00.123Z web WARN vmm::boot: the message`: the time (RFC 3339, UTC), the VM's name, the level, the
//! module and the message. A line is one `write` of at most [`LINE_MAX`] bytes, so lines of several processes that
//! share a file or pipe do not mix, and its text is escaped, so no guest can drive the terminal that it is read on.
//!
//! This is our own rather than env_logger or fern because it is on the way to the guest's first instruction, and because
//! the REST API changes all of it while it runs.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};
use vmm::append;
use vmm::config::LoggerConfig;

use crate::escape::Escape;
use vmm::timestamp::Timestamp;

/// Bytes of a line, newline included: what Linux writes to a pipe in one piece (`PIPE_BUF`, pipe(7)). It also bounds
/// what a guest can make rvmm allocate here. The rest of a longer line is dropped.
const LINE_MAX: usize = 4096;

/// How long a line waits for the reader of stderr.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes of a log that nobody asked for: that of a VM in the background.
const MAX_OWN_LOG: u64 = 1 << 20;

/// What is logged when nobody says.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::Warn;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts logging as `config` says; if it names no file, to `own`, which does not grow without bounds, else to stderr. To
/// be called once. `id` is the VM's name, which is part of each line. The error names the file that cannot be opened.
pub(crate) fn start(config: &LoggerConfig, id: &str, own: Option<&Path>) -> Result<(), String> {
    let how = How::new(config, own)?;
    let level = how.level;
    let logger = LOGGER.get_or_init(|| Logger {
        how: how.into(),
        id: id.to_owned(),
        own: own.map(Path::to_owned),
        lost: 0.into(),
    });
    log::set_logger(logger).map_err(|error| error.to_string())?;
    log::set_max_level(level);
    Ok(())
}

/// Logs as `config` says from now on. The error names the file that cannot be opened, and all is as it was then.
pub(crate) fn change(config: &LoggerConfig) -> Result<(), String> {
    let Some(logger) = LOGGER.get() else { return Ok(()) };
    let how = How::new(config, logger.own.as_deref())?;
    log::set_max_level(how.level);
    *logger.how.write().unwrap_or_else(PoisonError::into_inner) = how;
    Ok(())
}

/// Whether the log is on stderr, where the user is told things as well.
fn logs_to_stderr() -> bool {
    LOGGER.get().is_some_and(|logger| {
        matches!(logger.how.read().unwrap_or_else(PoisonError::into_inner).sink, Sink::Stderr)
    })
}

/// Logs why this process fails, if the log is not where the user is told of it anyway: whoever started it may not see that.
pub(crate) fn record_failure(error: &str) {
    if !logs_to_stderr() {
        log::error!("{error}");
    }
}

/// Tells the user `line` on stderr, and the log as well if that is elsewhere.
pub(crate) fn notify(line: &str) {
    if !logs_to_stderr() {
        log::warn!("{line}");
    }
    let mut stderr = io::stderr();
    // Nobody is left to tell when that fails.
    let _ = wait_for_room(&stderr, PATIENCE)
        .and_then(|()| stderr.write_all(format!("rvmm: {line}\n").as_bytes()));
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
    how: RwLock<How>,
    id: String,
    /// Where the log goes when nobody says.
    own: Option<PathBuf>,
    /// Lines that could not be written since the last one that could.
    lost: AtomicU64,
}

/// How to log.
struct How {
    sink: Sink,
    /// Records of this level and the more severe ones are written.
    level: LevelFilter,
    show_level: bool,
    show_origin: bool,
    /// What the path of a record's module begins with.
    module: Option<String>,
}

enum Sink {
    Stderr,
    File(File),
    /// A file with so many bytes of room.
    Bounded(File, AtomicU64),
}

impl How {
    fn new(config: &LoggerConfig, own: Option<&Path>) -> Result<Self, String> {
        let open = |path: &Path| {
            append::open(path)
                .map_err(|error| format!("cannot open the log file {}: {error}", path.display()))
        };
        let sink = match (&config.log_path, own) {
            (None, None) => Sink::Stderr,
            (None, Some(path)) => {
                let file = open(path)?;
                let len = file.metadata().map_or(0, |metadata| metadata.len());
                Sink::Bounded(file, MAX_OWN_LOG.saturating_sub(len).into())
            }
            (Some(path), _) => Sink::File(open(path)?),
        };
        Ok(Self {
            sink,
            level: config.level.map_or(DEFAULT_LEVEL, LevelFilter::from),
            show_level: config.show_level.unwrap_or(true),
            show_origin: config.show_log_origin.unwrap_or(false),
            module: config.module.clone(),
        })
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let of_module = |path: &String| metadata.target().starts_with(path.as_str());
        metadata.level() <= self.level && self.module.as_ref().is_none_or(of_module)
    }
}

impl Logger {
    fn line(&self, how: &How, record: &Record<'_>) -> Line {
        let mut line = Line::default();
        // An error here means that the line is full.
        let _ = self.write_line(how, record, &mut line);
        line.0.push('\n');
        line
    }

    fn write_line(&self, how: &How, record: &Record<'_>, line: &mut Line) -> fmt::Result {
        let mut line = Escape(line);
        write!(line, "{} {} ", Timestamp(SystemTime::now()), self.id)?;
        if how.show_level {
            write!(line, "{} ", record.level())?;
        }
        write!(line, "{}", record.target())?;
        if let (true, Some(file)) = (how.show_origin, record.file()) {
            write!(line, " {file}:{}", record.line().unwrap_or_default())?;
        }
        write!(line, ": {}", record.args())
    }

    /// How long a line may wait for a slow reader: not again once one waited in vain.
    fn patience(&self) -> Duration {
        if self.lost.load(Ordering::Relaxed) == 0 { PATIENCE } else { Duration::ZERO }
    }

    fn write(&self, sink: &Sink, line: &Line) -> io::Result<()> {
        match sink {
            Sink::Stderr => wait_for_room(&io::stderr(), self.patience())
                .and_then(|()| io::stderr().write_all(line.0.as_bytes())),
            Sink::File(file) => (&mut &*file).write_all(line.0.as_bytes()),
            Sink::Bounded(file, room) => {
                let len = line.0.len() as u64;
                room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(len))
                    .map_err(|_| io::ErrorKind::FileTooLarge)?;
                (&mut &*file).write_all(line.0.as_bytes())
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.how.read().unwrap_or_else(PoisonError::into_inner).wants(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let how = self.how.read().unwrap_or_else(PoisonError::into_inner);
        if !how.wants(record.metadata()) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let note = format!("{lost} lines were lost here");
            let note = self.line(
                &how,
                &Record::builder()
                    .level(log::Level::Warn)
                    .target(module_path!())
                    .args(format_args!("{note}"))
                    .build(),
            );
            if self.write(&how.sink, &note).is_err() {
                self.lost.fetch_add(lost.saturating_add(1), Ordering::Relaxed);
                return;
            }
        }
        if self.write(&how.sink, &self.line(&how, record)).is_err() {
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
