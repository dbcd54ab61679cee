//! Where the bytes go that the guest writes to its consoles.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use devices::legacy::serial::SerialOutput;
use devices::rate_limiter::Budget;

use super::ConsoleConfig;
use super::queued::{Queue, Queued};
use super::tape::Tape;
use crate::config::VmConfig;

/// The console's file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The host refuses it.
    #[error("cannot write the console to {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It would overwrite what the guest is made of.
    #[error("cannot write the console to {}: the guest has it as {}; name another file", path.display(), guest.display())]
    OfTheGuest {
        /// The file.
        path: PathBuf,
        /// The kernel, initrd or disk that it is.
        guest: PathBuf,
    },
}

/// What a write does that a signal interrupts.
const TRY_AGAIN: u8 = 0;
const DROP: u8 = 1;
const KEEP: u8 = 2;

/// Bytes that a pause keeps at most: more than one exit of each of the vCPUs writes.
const MAX_KEPT: usize = 1 << 20;

/// A place for console output that never holds a vCPU fast once the VM is to stop.
///
/// Writing to a terminal or pipe that nobody reads blocks, which slows the guest and nothing else. A vCPU that blocks so
/// is woken by the signal that stops it, and the byte is dropped; or by the one that pauses it, and the byte is kept for
/// the next write.
#[derive(Clone)]
pub struct Output {
    pub(super) file: Option<Arc<File>>,
    /// What the virtio console has written, on its way to the file.
    pub(super) queue: Arc<Queue>,
    when_interrupted: Arc<AtomicU8>,
    /// What a pause kept this writer from writing.
    kept: Vec<u8>,
    /// It is a file of its own, not standard output.
    console_file: bool,
    /// The file was not there before.
    made: Option<PathBuf>,
    /// It is standard output.
    stdio: bool,
    /// What may be written in a time.
    limit: Option<Arc<Mutex<Budget>>>,
    /// Where all of it is taken down.
    tape: Option<Arc<Tape>>,
}

impl Output {
    /// Opens what `console` names, for the guest of `vm`. A file that is there keeps its content until
    /// [`begin`](Self::begin).
    ///
    /// # Errors
    /// [`OutputError`] when the file cannot be made, is a named pipe that nobody reads, or is the guest's own.
    pub fn open(console: &ConsoleConfig, vm: &VmConfig) -> Result<Self, OutputError> {
        let serial = vm.serial.as_ref();
        let named = serial.and_then(|serial| serial.serial_out_path.clone()).map(ConsoleConfig::File);
        let console = named.as_ref().unwrap_or(console);
        let limit = serial.and_then(|serial| serial.rate_limiter.as_ref()).and_then(Budget::new);
        let (file, made) = match console {
            ConsoleConfig::None => (None, None),
            // Standard output may be closed; the guest runs all the same.
            ConsoleConfig::Stdio => (io::stdout().as_fd().try_clone_to_owned().ok().map(File::from), None),
            ConsoleConfig::File(path) => {
                let (file, made) = open(path, vm)?;
                (Some(file), made.then(|| path.clone()))
            }
        };
        Ok(Self {
            file: file.map(Arc::new),
            queue: Arc::default(),
            when_interrupted: Arc::default(),
            kept: Vec::new(),
            console_file: matches!(console, ConsoleConfig::File(_)),
            made,
            stdio: *console == ConsoleConfig::Stdio,
            limit: limit.map(|limit| Arc::new(Mutex::new(limit))),
            tape: None,
        })
    }

    /// The same, with all that is written taken down on `tape`.
    #[must_use]
    pub fn taped(mut self, tape: Option<Arc<Tape>>) -> Self {
        self.tape = tape;
        self
    }

    /// What the host knows of the file, if there is one.
    pub fn metadata(&self) -> Option<Metadata> {
        self.file.as_ref().and_then(|file| file.metadata().ok())
    }

    /// Whether the console is standard input and output.
    pub fn is_stdio(&self) -> bool {
        self.stdio
    }

    /// Whether `len` more bytes are within the limit, which counts them then.
    fn may_write(&self, len: usize) -> bool {
        let Some(limit) = &self.limit else { return true };
        limit.lock().unwrap_or_else(PoisonError::into_inner).spend(len as u64)
    }

    /// The VM is made: what an earlier one left in the file goes.
    ///
    /// # Errors
    /// What the host said.
    pub fn begin(&self) -> io::Result<()> {
        match &self.file {
            Some(file) if self.console_file && file.metadata()?.is_file() => file.set_len(0),
            _ => Ok(()),
        }
    }

    /// There is no VM after all: a file that was made for it goes.
    pub fn abandon(&self) {
        if let Some(path) = &self.made {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The same place, for one who must not wait: the virtio console's device.
    pub fn queued(&self) -> Queued {
        Queued::new(self.clone())
    }

    /// Waits until all that went through [`queued`](Self::queued) is written, or until `interruption` is readable.
    ///
    /// # Errors
    /// What the host said when it had no descriptor to give.
    pub fn wait_written(&self, interruption: RawFd) -> io::Result<()> {
        self.queue.wait_written(interruption)
    }

    /// From now on whoever blocks in a write gives up when a signal comes, and what it wrote is dropped.
    pub fn release(&self) {
        self.when_interrupted.store(DROP, Ordering::Release);
    }

    /// From now on whoever blocks in a write gives up when a signal comes, and what it wrote is kept for the next write.
    pub fn interrupt(&self) {
        self.when_interrupted.store(KEEP, Ordering::Release);
    }

    /// Takes [`release`](Self::release) or [`interrupt`](Self::interrupt) back: a guest writes.
    pub fn hold(&self) {
        self.when_interrupted.store(TRY_AGAIN, Ordering::Release);
    }
}

/// Opens the file, or makes it; whether it was made.
fn open(path: &Path, vm: &VmConfig) -> Result<(File, bool), OutputError> {
    let failed = |source| OutputError::Open { path: path.to_owned(), source };
    // O_NONBLOCK for the opening only: a named pipe without a reader is refused instead of waited for.
    let how = File::options().write(true).custom_flags(libc::O_NONBLOCK).clone();
    let (file, made) = match how.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (how.clone().create_new(true).open(path).map_err(failed)?, true)
        }
        other => (other.map_err(failed)?, false),
    };
    if let Some(guest) = file.metadata().ok().and_then(|metadata| vm.file_of_the_guest(&metadata)) {
        return Err(OutputError::OfTheGuest { path: path.to_owned(), guest: guest.to_owned() });
    }
    set_blocking(&file).map_err(failed)?;
    Ok((file, made))
}

#[expect(unsafe_code, reason = "fcntl(2) has no wrapper in the standard library")]
fn set_blocking(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: F_SETFL takes an integer, and the descriptor is open.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes all of `kept`, or fails and leaves the rest in it.
fn write_kept(mut file: &File, kept: &mut Vec<u8>) -> io::Result<()> {
    while !kept.is_empty() {
        let written = file.write(kept)?;
        kept.drain(..written);
    }
    Ok(())
}

impl Output {
    /// Writes to the file, if there is one.
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = self.file.as_deref() else { return Ok(bytes.len()) };
        let kept = &mut self.kept;
        let written = write_kept(file, kept).and_then(|()| { file }.write(bytes));
        match written {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                match self.when_interrupted.load(Ordering::Acquire) {
                    DROP => Ok(bytes.len()),
                    KEEP if kept.len() + bytes.len() <= MAX_KEPT => {
                        kept.extend_from_slice(bytes);
                        Ok(bytes.len())
                    }
                    _ => Err(error),
                }
            }
            other => other,
        }
    }
}

impl SerialOutput for Output {
    fn held_back(&self) -> &[u8] {
        &self.kept
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.may_write(bytes.len()) {
            // As from a serial line that is too slow.
            return Ok(bytes.len());
        }
        let written = self.put(bytes);
        if let Some(tape) = &self.tape {
            match &written {
                Ok(len) => tape.record(bytes.get(..*len).unwrap_or(bytes)),
                // Nobody reads standard output any more; others may.
                Err(error) if error.kind() != io::ErrorKind::Interrupted => tape.record(bytes),
                Err(_) => {}
            }
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
