//! How data gets from the disk image to the guest and back, without a copy in between.
//!
//! Both engines take jobs one by one, start them together, and give each back once, done or failed. A job is whole or
//! failed: what the host does in part, an engine finishes.

mod io_uring;
mod sync;

use std::io;
use std::sync::Arc;

pub(in crate::virtio::block) use self::io_uring::UringEngine;
pub(in crate::virtio::block) use self::sync::SyncEngine;
use super::image::DiskImage;
use super::request::{Operation, Reply};
use crate::GuestMemory;
use crate::virtio::segments::{Iovecs, OutsideMemory};

/// What both engines work on. It holds the guest's memory, so that what the host still writes to stays mapped.
#[derive(Clone)]
pub(in crate::virtio::block) struct Target {
    /// The disk.
    pub image: Arc<DiskImage>,
    /// Memory that the data of every job is in.
    pub memory: GuestMemory,
    /// Flags of pwritev2(2) for every write.
    pub write_flags: i32,
}

/// A request under way.
#[derive(Debug)]
pub(in crate::virtio::block) struct Job {
    /// What is to be done.
    pub operation: Operation,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::virtio::block) enum JobError {
    /// The driver named memory that is not there.
    #[error(transparent)]
    Guest(#[from] OutsideMemory),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// A job that is done.
pub(in crate::virtio::block) type Completion = (Job, Result<(), JobError>);

/// What became of a job that an engine was given.
#[derive(Debug)]
pub(in crate::virtio::block) enum Pushed {
    /// It was done at once.
    Done(Completion),
    /// It waits for [`submit`](Engine::submit), or for the host.
    UnderWay,
    /// One with the same head is under way: the driver gave away descriptors that it did not own.
    Refused(Job),
}

/// What is left of an engine that was drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::virtio::block) enum Drained {
    /// All of it: it takes jobs again.
    Ready,
    /// Nothing: the host refused it. It takes no job any more.
    Spent,
}

/// Does the I/O of a block device.
pub(in crate::virtio::block) trait Engine: Send {
    /// Takes a job.
    fn push(&mut self, job: Job) -> Pushed;

    /// Starts the jobs that were pushed.
    ///
    /// # Errors
    /// What the host said when it took none of them.
    fn submit(&mut self) -> io::Result<()>;

    /// Moves the jobs that were under way and are done to `done`. True when the completion event was signalled for some of them.
    ///
    /// # Errors
    /// What the host said when it did not take the rest of a job that it did in part.
    fn take_completions(&mut self, done: &mut Vec<Completion>) -> io::Result<bool>;

    /// Waits until the host touches neither guest memory nor the disk, and moves every job under way to `done`.
    /// Nothing is pushed after this to one that is spent.
    fn drain(&mut self, done: &mut Vec<Completion>) -> Drained;
}

/// Takes `done` bytes off the front of `iovecs`, which has at least that many, and says how many bytes are left.
fn advance(iovecs: &mut Iovecs, mut done: usize) -> usize {
    if matches!(iovecs.as_slice(), [only] if only.iov_len == done) {
        iovecs.clear();
        return 0;
    }
    let whole = iovecs
        .iter()
        .take_while(|iovec| {
            let whole = iovec.iov_len <= done;
            done -= if whole { iovec.iov_len } else { 0 };
            whole
        })
        .count();
    iovecs.drain(..whole);
    if let Some(first) = iovecs.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(done);
        first.iov_len -= done;
    }
    iovecs.iter().map(|iovec| iovec.iov_len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_comes_off_the_front() {
        let iovec = |base: usize, len| libc::iovec { iov_base: base as *mut _, iov_len: len };
        let mut iovecs = smallvec::smallvec![iovec(0x1000, 4), iovec(0x2000, 4), iovec(0x3000, 4)];
        assert_eq!(advance(&mut iovecs, 6), 6);
        assert_eq!((iovecs[0].iov_base as usize, iovecs[0].iov_len, iovecs.len()), (0x2002, 2, 2));
        assert_eq!(advance(&mut iovecs, 2), 4);
        assert_eq!((iovecs[0].iov_base as usize, iovecs.len()), (0x3000, 1));
        assert_eq!(advance(&mut iovecs, 4), 0);
        assert!(iovecs.is_empty());
    }
}
