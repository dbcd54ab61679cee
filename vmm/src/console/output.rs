//! Where the bytes go that the guest writes to its serial port.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ConsoleConfig;

/// The console's file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the console to {}", path.display())]
pub struct OutputError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A place for console output that never holds a vCPU fast once the VM is to stop.
///
/// Writing to a terminal or pipe that nobody reads blocks, which slows the guest and nothing else. A vCPU that blocks so
/// is woken by the signal that stops it, and the byte is dropped.
#[derive(Clone)]
pub struct Output {
    file: Option<Arc<File>>,
    released: Arc<AtomicBool>,
}

impl Output {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// [`OutputError`] when the file cannot be made or is a named pipe that nobody reads.
    pub fn open(config: &ConsoleConfig) -> Result<Self, OutputError> {
        let file = match config {
            ConsoleConfig::None => None,
            // Standard output may be closed; the guest runs all the same.
            ConsoleConfig::Stdio => io::stdout().as_fd().try_clone_to_owned().ok().map(File::from),
            ConsoleConfig::File(path) => Some(open(path)?),
        };
        Ok(Self { file: file.map(Arc::new), released: Arc::default() })
    }

    /// From now on whoever blocks in a write gives up when a signal comes, and what it wrote is dropped.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Takes [`release`](Self::release) back: another guest writes.
    pub fn hold(&self) {
        self.released.store(false, Ordering::Release);
    }
}

fn open(path: &PathBuf) -> Result<File, OutputError> {
    // O_NONBLOCK for the opening only: a named pipe without a reader is refused instead of waited for.
    let opened =
        File::options().write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened
        .and_then(|file| set_blocking(&file).map(|()| file))
        .map_err(|source| OutputError { path: path.clone(), source })
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

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &self.file else { return Ok(bytes.len()) };
        match file.as_ref().write(bytes) {
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted && self.released.load(Ordering::Acquire) =>
            {
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
