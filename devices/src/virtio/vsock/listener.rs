//! The unix socket that host programs connect to.
#![expect(unsafe_code, reason = "a socket whose mode is set before its file exists")]

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use log::warn;

use super::stream::{Stream, address_of, new_socket, to_result};

/// Clients that may wait to be accepted.
const BACKLOG: libc::c_int = 128;
/// Only the user that runs the VM may talk to its guest.
const MODE: libc::mode_t = 0o600;

/// Why there is no socket to connect to.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Somebody listens there: another VM, most likely.
    #[error("vsock: {path} is in use: another process listens there; give each VM a path of its own")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// What is there must not be replaced.
    #[error("vsock: {path} exists and is not a socket; remove it, or give another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The host refused: the directory is missing, say, or may not be written.
    #[error("vsock: cannot make the socket {path}")]
    Host {
        /// The path.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// A listening unix socket. Its file goes with it, if it is still the same file.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the socket's file.
    file: (u64, u64),
}

impl Listener {
    /// Listens at `path`, which must not exist, or be a socket that nobody listens at any more.
    ///
    /// # Errors
    /// [`ListenerError`], with the path.
    pub(super) fn bind(path: &Path) -> Result<Self, ListenerError> {
        let host = |source| ListenerError::Host { path: path.to_owned(), source };
        let socket = new_socket().map_err(host)?;
        // The mode of the socket itself is what the kernel gives its file, but for the umask's bits.
        // SAFETY: no memory is passed.
        to_result(unsafe { libc::fchmod(socket.as_raw_fd(), MODE) }).map_err(host)?;
        match bind(&socket, path) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                remove_stale(path)?;
                bind(&socket, path).map_err(host)?;
            }
            result => result.map_err(host)?,
        }
        let file = identity(&fs::symlink_metadata(path).map_err(host)?);
        let listener = Self { socket, path: path.to_owned(), file };
        // SAFETY: no memory is passed.
        to_result(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) }).map_err(host)?;
        Ok(listener)
    }

    /// The next client.
    ///
    /// # Errors
    /// What the host said; `WouldBlock` when there is none.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        Stream::accept(self.as_raw_fd())
    }

    /// Whether the file at the path is still this socket's.
    pub(super) fn is_reachable(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.file)
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.is_reachable()
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!("vsock: the socket {} stays behind: {error}", self.path.display());
        }
    }
}

fn bind(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    let (address, len) = address_of(path)?;
    // SAFETY: the kernel reads `len` bytes of `address`, which has as many.
    to_result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// Removes what is at `path` if it is a socket that nobody listens at.
fn remove_stale(path: &Path) -> Result<(), ListenerError> {
    let host = |source| ListenerError::Host { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        // Gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(host(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenerError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match Stream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(host),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A listener that is too busy to take this one is a listener, and so is one of another type of socket.
        Ok(_) => Err(ListenerError::InUse { path: path.to_owned() }),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EPROTOTYPE)) => {
            Err(ListenerError::InUse { path: path.to_owned() })
        }
        Err(error) => Err(host(error)),
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
