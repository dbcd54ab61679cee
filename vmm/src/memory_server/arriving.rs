//! A VM that has connected and says what memory it has.
#![expect(unsafe_code, reason = "SO_PEERCRED has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

use crate::memory::handshake::{self, MAX_MESSAGE, Part};
use crate::memory::userfault::Userfault;

/// What it said so far.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    message: Vec<u8>,
    descriptor: Option<File>,
}

impl Arriving {
    /// Not a word yet.
    pub(super) fn has_said_nothing(&self) -> bool {
        self.message.is_empty()
    }

    /// Reads on, without waiting. `None`: there is more to come.
    ///
    /// # Errors
    /// It says what cannot be, sends no userfaultfd, or has gone.
    pub(super) fn receive(
        &mut self,
        connection: &UnixStream,
        len: u64,
    ) -> io::Result<Option<(Userfault, Vec<Part>)>> {
        let mut buffer = [0; 4096];
        let (count, descriptor) = match connection.recv_with_fd(&mut buffer) {
            Err(error) if error.errno() == libc::EAGAIN => return Ok(None),
            Err(error) => return Err(io::Error::from_raw_os_error(error.errno())),
            Ok((0, _)) => return Err(refused("it went without a word")),
            Ok(received) => received,
        };
        // The first one is the one.
        self.descriptor = self.descriptor.take().or(descriptor);
        self.message.extend(buffer.get(..count).unwrap_or_default());
        if self.message.len() > MAX_MESSAGE {
            return Err(refused(&format!("its message has more than {MAX_MESSAGE} bytes")));
        }
        let parts = handshake::parse(&self.message, len).map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            refused(&format!("{error}{}", source.unwrap_or_default()))
        })?;
        let Some(parts) = parts else { return Ok(None) };
        let descriptor =
            self.descriptor.take().ok_or_else(|| refused("there is no userfaultfd with its message"))?;
        Ok(Some((Userfault::received(descriptor)?, parts)))
    }
}

/// One that says nothing.
pub(super) fn silent() -> io::Error {
    refused("it does not say what memory it has")
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The process at the other end.
pub(super) fn peer(connection: &UnixStream) -> Option<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` is a valid place for the `len` bytes of a `struct ucred`, which is what the option has.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    u32::try_from(peer.pid).ok().filter(|pid| result == 0 && *pid > 0)
}
