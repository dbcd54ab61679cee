//! Bytes of a guest that a host's socket has not taken yet.

use std::collections::VecDeque;
use std::io;

use crate::GuestMemory;
use crate::virtio::segments::{OutsideMemory, Segments};

/// The bytes, first in first out. It takes memory only while there are any; the guest's credit bounds it.
#[derive(Debug, Default)]
pub(super) struct Backlog(VecDeque<u8>);

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies `data` to the end. There are never more than `most` bytes, as the caller knows, so as much is set aside at
    /// once and no more.
    ///
    /// # Errors
    /// When it is not in guest memory.
    pub(super) fn append(
        &mut self,
        memory: &GuestMemory,
        data: &Segments,
        most: u32,
    ) -> Result<(), OutsideMemory> {
        let mut bytes = vec![0; data.len() as usize];
        data.read(memory, &mut bytes)?;
        if self.0.capacity() == 0 {
            self.0 = VecDeque::with_capacity(most as usize);
        }
        self.0.extend(bytes);
        Ok(())
    }

    /// Gives `write` the front, which says how much of it it took, until it takes no more; how much that is in all.
    ///
    /// # Errors
    /// What `write` said, unless it is that it would block.
    pub(super) fn flush(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let before = self.0.len();
        while !self.0.is_empty() {
            match write(self.0.as_slices().0) {
                Ok(0) => break,
                Ok(count) => drop(self.0.drain(..count.min(self.0.len()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let after = self.0.len();
        if after == 0 {
            self.0 = VecDeque::new();
        }
        Ok(before - after)
    }
}
