//! A host program's end of a connection: a unix stream socket that never blocks.
#![expect(unsafe_code, reason = "accepting without blocking, scattered and gathered I/O")]

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::{descriptors, unix_socket};

/// Most pieces of memory that one system call takes (IOV_MAX).
const MAX_IOVECS: libc::c_int = 1024;

/// A connected unix stream socket.
#[derive(Debug)]
pub(super) struct Stream(UnixStream);

impl Stream {
    /// Connects to the socket at `path`, at once or not at all.
    ///
    /// # Errors
    /// What the host said; EAGAIN when whoever listens there does not keep up.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        Self::within_limit(unix_socket::connect(path)?)
    }

    /// Takes the next client of the listening socket `listener`.
    ///
    /// # Errors
    /// What the host said; `WouldBlock` when there is none.
    pub(super) fn accept(listener: RawFd) -> io::Result<Self> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no address is asked for, so no memory is passed.
        let fd = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        to_result(fd)?;
        // SAFETY: the kernel just made this descriptor, and nobody else has it.
        Self::within_limit(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    /// Refuses a stream whose descriptor is one of the last: the guest and its peers decide how many streams there are.
    fn within_limit(stream: UnixStream) -> io::Result<Self> {
        if descriptors::is_reserved(stream.as_raw_fd()) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(Self(stream))
    }

    /// Reads into memory that the caller answers for: each of `iovecs` is valid for writes until this returns.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn read_vectored(&self, iovecs: &[libc::iovec]) -> io::Result<usize> {
        let count = libc::c_int::try_from(iovecs.len()).unwrap_or(MAX_IOVECS).min(MAX_IOVECS);
        // SAFETY: `count` elements of `iovecs` are valid, and what they name is, as the caller says. A guest that
        // changes or reads its memory meanwhile sees bytes of the stream, nothing else.
        let read = unsafe { libc::readv(self.as_raw_fd(), iovecs.as_ptr(), count) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Writes from memory that the caller answers for: each of `iovecs` is valid for reads until this returns.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn write_vectored(&self, iovecs: &[libc::iovec]) -> io::Result<usize> {
        // SAFETY: all zeros is a valid `msghdr`: no address, no data, no control message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = iovecs.as_ptr().cast_mut();
        message.msg_iovlen = iovecs.len().min(MAX_IOVECS as usize);
        // SAFETY: `message` names valid elements of `iovecs`, which the kernel only reads, and what they name is valid,
        // as the caller says.
        let written = unsafe { libc::sendmsg(self.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Writes the front of `bytes` and says how much of them.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the kernel reads at most the length of `bytes`.
        let written =
            unsafe { libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Reads to the front of `bytes` and says how much.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.receive(bytes, 0)
    }

    /// Like [`read`](Self::read), and the bytes stay in the stream.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.receive(bytes, libc::MSG_PEEK)
    }

    fn receive(&self, bytes: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: the kernel writes at most the length of `bytes`.
        let read = unsafe { libc::recv(self.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Ends one way, or both.
    pub(super) fn shutdown(&self, how: Shutdown) {
        // It fails only where the other side has gone, which its next event tells.
        let _ = self.0.shutdown(how);
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The host's error, if there was one.
pub(super) fn to_result(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
