//! Unix stream sockets of the host: one that programs connect to, with its file (where it may be put, what is replaced,
//! and that it goes again), and connecting without waiting. virtio-vsock and the REST API have such.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use log::warn;
use rustix::fs::Mode;

use crate::patience::while_in_use;
use socket2::{Domain, SockAddr, Socket, Type};

/// Bytes of a socket's path (`sun_path` of unix(7), which ends in a NUL).
const MAX_PATH: usize = 107;
/// Only its user can connect.
const MODE: Mode = Mode::from_raw_mode(0o600);
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

/// Whether the other side of a connection may send file descriptors (`SCM_RIGHTS` of unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// It gets EPERM, since Linux 6.16. Before, a descriptor that it sends is closed by the thread that reads the bytes with it,
    /// and blocks that thread as long as its close(2) does.
    Refuse,
    /// They can be received.
    Accept,
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
    pub fn bind(path: &Path, descriptors: Descriptors) -> Result<Self, SocketError> {
        let len = path.as_os_str().len();
        if len > MAX_PATH {
            return Err(SocketError::PathTooLong { len });
        }
        // Of two that find a stale socket, the second would remove what the first has put there.
        let _lock = lock_folder(path)?;
        let is_in_use = |error: &SocketError| matches!(error, SocketError::InUse);
        let socket = while_in_use(is_in_use, || match bind(path, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                Ok(bind(path, descriptors)?)
            }
            other => Ok(other?),
        })?;
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

/// Connects to the socket at `path`, at once or not at all; the result does not block, and takes no descriptors.
///
/// # Errors
/// What the host said; EAGAIN when whoever listens there does not keep up.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    refuse_descriptors(&socket);
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Listens, at a path where there is nothing. Who finds the path can connect, unless it is another user.
fn bind(path: &Path, descriptors: Descriptors) -> io::Result<UnixListener> {
    // A socket has its path before it listens. So it listens under another name first, if there can be one.
    if let Some(hidden) = hidden(path) {
        // Of a process that was killed in between.
        if fs::symlink_metadata(&hidden).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            fs::remove_file(&hidden)?;
        }
        // What keeps it from that may not keep it from `path`.
        if let Ok(listener) = bind_in_place(&hidden, descriptors) {
            let named = fs::hard_link(&hidden, path);
            fs::remove_file(&hidden)?;
            match named {
                Ok(()) => return Ok(listener),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
                }
                // A file system without hard links.
                Err(_) => {}
            }
        }
    }
    bind_in_place(path, descriptors)
}

/// The path beside `path` where a socket is until it listens; `None` if that would be too long.
fn hidden(path: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    Some(path.with_file_name(name)).filter(|hidden| hidden.as_os_str().len() <= MAX_PATH)
}

fn bind_in_place(path: &Path, descriptors: Descriptors) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if descriptors == Descriptors::Refuse {
        refuse_descriptors(&socket);
    }
    // The file that bind(2) makes has the permissions of the socket.
    rustix::fs::fchmod(&socket, MODE)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Has the kernel refuse descriptors that are sent to `socket` and to connections that it accepts. Says whether it does:
/// before Linux 6.16 it does not.
#[expect(unsafe_code, reason = "SO_PASSRIGHTS has no safe wrapper")]
fn refuse_descriptors(socket: &impl AsFd) -> bool {
    /// Of `asm-generic/socket.h`.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let no: libc::c_int = 0;
    // SAFETY: the option has the size of an `int`, which `no` is.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    result == 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

    #[test]
    fn whoever_finds_a_socket_can_connect() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..2000 {
            let path = folder.path().join(round.to_string());
            let client = thread::spawn({
                let path = path.clone();
                move || {
                    loop {
                        match UnixStream::connect(&path) {
                            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                            other => return other.map(drop),
                        }
                    }
                }
            });
            let socket = ListeningSocket::bind(&path, Descriptors::Refuse).unwrap();
            client.join().unwrap().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            drop(socket.into_parts());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_listener_that_is_about_to_end_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let old = UnixListener::bind(&path).unwrap();
        let ending = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(old);
        });
        ListeningSocket::bind(&path, Descriptors::Refuse).unwrap();
        ending.join().unwrap();
        let _stays = UnixListener::bind(&path).unwrap();
        let error = ListeningSocket::bind(&path, Descriptors::Refuse).unwrap_err();
        assert!(matches!(error, SocketError::InUse), "{error}");
    }

    #[test]
    fn descriptors_are_refused_where_nobody_receives_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let is_supported = refuse_descriptors(&Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
        for descriptors in [Descriptors::Refuse, Descriptors::Accept] {
            let (listener, _file) = ListeningSocket::bind(&path, descriptors).unwrap().into_parts();
            let client = UnixStream::connect(&path).unwrap();
            let server = listener.accept().unwrap().0;
            let sent = client.send_with_fd(&b"x"[..], client.as_raw_fd());
            if descriptors == Descriptors::Refuse && is_supported {
                assert_eq!(sent.unwrap_err().errno(), libc::EPERM);
            } else {
                sent.unwrap();
                assert!(server.recv_with_fd(&mut [0]).unwrap().1.is_some());
            }
        }
        // The side that connects does not receive any either.
        let listener = UnixListener::bind(&path).unwrap();
        let _client = connect(&path).unwrap();
        let server = listener.accept().unwrap().0;
        let sent = server.send_with_fd(&b"x"[..], server.as_raw_fd());
        assert_eq!(sent.is_err(), is_supported);
    }
}
