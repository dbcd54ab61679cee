//! The memory server turn by turn, and what a VM sends to it, for fuzz targets.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use devices::GuestMemory;

use super::{Image, Options, Report, ServeError, Server};
use crate::memory::{handshake, userfault};

/// A server whose loop the caller runs.
pub struct ServerHarness(Server);

impl ServerHarness {
    /// A server that listens, as [`super::serve`] has it.
    ///
    /// # Errors
    /// As of [`super::serve`].
    pub fn new(image: Image, options: &Options) -> Result<Self, ServeError> {
        let server = Server::new(image, options)?;
        // A fuzzer ends by signals.
        crate::signals::unblock();
        Ok(Self(server))
    }

    /// One round of the loop, which waits up to `timeout` milliseconds; the VMs that were let go.
    ///
    /// # Errors
    /// As of [`super::serve`].
    pub fn turn(&mut self, timeout: u16) -> Result<Vec<Report>, ServeError> {
        let mut reports = Vec::new();
        let _ = self.0.turn(timeout.into(), &mut |report| reports.push(report.clone()))?;
        Ok(reports)
    }

    /// VMs that are connected.
    pub fn clients(&self) -> usize {
        self.0.clients.len()
    }
}

/// Ranges of addresses of a VM, and of offsets in the memory file, of each part of its memory.
pub type Parts = Vec<(Range<u64>, Range<u64>)>;

/// The parts that a VM's message names, of a memory file of `len` bytes; `None` if there is more to come.
///
/// # Errors
/// Why the message is refused.
pub fn parse_handshake(message: &[u8], len: u64) -> Result<Option<Parts>, String> {
    let parts = handshake::parse(message, len).map_err(|error| error.to_string())?;
    Ok(parts.map(|parts| parts.iter().map(|part| (part.addresses(), part.offsets())).collect()))
}

/// A userfaultfd for all of `memory`.
///
/// # Errors
/// What the host said: this user may not have one.
pub fn userfaultfd(memory: &GuestMemory) -> io::Result<impl AsRawFd + use<>> {
    userfault(memory).map_err(io::Error::other)
}
