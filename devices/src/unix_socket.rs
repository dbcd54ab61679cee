//! Unix stream sockets of the host: one that programs connect to, with its file (where it may be put, what is replaced,
//! and that it goes again), and connecting without waiting. virtio-vsock and the REST API have such.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use log::warn;
use socket2::{Domain, SockAddr, Socket, Type};

/// Bytes of a socket's path (`sun_path` of unix(7), which ends in a NUL).
const MAX_PATH: usize = 107;
/// Only its user can connect.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How often, and how long apart, another rvmm is waited for that is about to make a socket in the same folder.
const LOCK_TRIES: u32 = 100;
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Why there can be no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit.
    #[error("the path has {len} bytes; that of a socket has {MAX_PATH} at most")]
    PathTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Somebody listens there.
    #[error("another process listens on it; end that, or name another path")]
    InUse,
    /// There is something else.
    #[error("there is a file that is no socket; name another path")]
    NotASocket,
    /// Others make sockets in this folder and do not come to an end.
    #[error("its folder is locked by another process")]
    FolderLocked,
    /// The host refuses it.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// A listening socket with its file, which is removed in the end.
#[derive(Debug)]
pub struct ListeningSocket {
    socket: UnixListener,
    file: SocketFile,
}

impl ListeningSocket {
    /// Listens at `path`. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`SocketError`]; whatever was there is still there.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let len = path.as_os_str().len();
        if len > MAX_PATH {
            return Err(SocketError::PathTooLong { len });
        }
        // Of two that find a stale socket, the second would remove what the first has put there.
        let _lock = lock_folder(path)?;
        let socket = match bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                bind(path)?
            }
            other => other?,
        };
        let identity = fs::symlink_metadata(path).map(|metadata| identity(&metadata))?;
        let file = SocketFile { path: path.to_owned(), identity };
        socket.set_nonblocking(true)?;
        Ok(Self { socket, file })
    }

    /// The socket, non-blocking, and its file.
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.socket, self.file)
    }

    /// Whether the file at the path is still this socket's.
    pub fn is_reachable(&self) -> bool {
        self.file.is_there()
    }
}

impl AsRawFd for ListeningSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Connects to the socket at `path`, at once or not at all; the result does not block.
///
/// # Errors
/// What the host said; EAGAIN when whoever listens there does not keep up.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Listens, at a path where there is nothing. Others cannot connect, not even for a moment: nobody can before it listens.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))
        .and_then(|()| socket.listen(BACKLOG))
        .inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        // Gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(file) if !file.file_type().is_socket() => return Err(SocketError::NotASocket),
        Ok(_) => {}
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(SocketError::InUse),
        // One that is too busy to take this client is a listener all the same, and so is one of another type of socket.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EPROTOTYPE)) => {
            Err(SocketError::InUse)
        }
        Err(error) => Err(error.into()),
    }
}

/// What group and others may do with a folder: whoever can open it can lock it.
const OTHERS: u32 = 0o077;

/// Locks the socket's folder. Where others can do so too, as in /tmp, one who keeps it locked keeps nobody from listening.
fn lock_folder(path: &Path) -> Result<Option<File>, SocketError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    for _ in 0..LOCK_TRIES {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(folder)),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_INTERVAL),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    let by_others = folder.metadata()?.mode() & OTHERS != 0;
    if by_others { Ok(None) } else { Err(SocketError::FolderLocked) }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The file of a socket. It is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            // It is stale now, and replaced by the next VM.
            warn!("the socket {} stays behind: {error}", self.path.display());
        }
    }
}
