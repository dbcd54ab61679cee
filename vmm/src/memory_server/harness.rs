//! The memory server on a thread, and what a VM sends to it, for fuzz targets.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use devices::GuestMemory;

use super::{Image, Options, ServeError, Server, Shared, set};
use crate::memory::{handshake, userfault};

/// A server on a thread of its own.
pub struct ServerHarness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl ServerHarness {
    /// A server that listens, as [`super::serve`] has it.
    ///
    /// # Errors
    /// As of [`super::serve`].
    pub fn new(image: Image, options: &Options) -> Result<Self, ServeError> {
        let server = Server::new(image, options)?;
        // A fuzzer ends by signals.
        crate::signals::unblock();
        let (shared, once) = (Arc::clone(&server.shared), options.once);
        Ok(Self { shared, thread: Some(std::thread::spawn(move || server.run(once, |_| {}))) })
    }

    /// VMs that are connected.
    pub fn clients(&self) -> usize {
        self.shared.slots.count()
    }

    /// Ends the server.
    ///
    /// # Errors
    /// As of [`super::serve`].
    pub fn end(mut self) -> Result<(), ServeError> {
        set(&self.shared.stop);
        self.shared.notify();
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Ok(())))
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
