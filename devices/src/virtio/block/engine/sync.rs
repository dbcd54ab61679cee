//! One system call per job, in the thread that pushes it.
#![expect(unsafe_code, reason = "preadv(2) and pwritev2(2) on guest memory")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::Permissions;

use super::{Completion, Drained, Engine, Job, JobError, Pushed, Target, advance};
use crate::virtio::block::direct::{Alignment, Bounce};
use crate::virtio::block::request::Operation;
use crate::virtio::segments::{Iovecs, Segments};

/// Does each job when it is pushed.
pub(in crate::virtio::block) struct SyncEngine {
    target: Target,
}

impl SyncEngine {
    /// An engine for `target`.
    pub(in crate::virtio::block) fn new(target: Target) -> Self {
        Self { target }
    }
}

impl Engine for SyncEngine {
    fn push(&mut self, job: Job) -> Pushed {
        let result = perform(&self.target, &job.operation);
        Pushed::Done((job, result))
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn take_completions(&mut self, _done: &mut Vec<Completion>) -> io::Result<bool> {
        Ok(false)
    }

    fn drain(&mut self, _done: &mut Vec<Completion>) -> Drained {
        Drained::Ready
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// Does one operation and returns when it is done.
pub(super) fn perform(target: &Target, operation: &Operation) -> Result<(), JobError> {
    let Target { image, memory: _, write_flags } = target;
    match operation {
        Operation::Read { offset, data } => transfer(target, Direction::Read, *offset, data)?,
        Operation::Write { offset, data } => transfer(target, Direction::Write, *offset, data)?,
        Operation::Flush => image.file().sync_data()?,
        Operation::Discard { len: 0, .. }
        | Operation::WriteZeroes { len: 0, .. }
        | Operation::GetId { .. } => {}
        Operation::Discard { offset, len } => image.discard(*offset, *len)?,
        Operation::WriteZeroes { offset, len, unmap } => {
            image.write_zeroes(*offset, *len, *unmap)?;
            if *write_flags & libc::RWF_DSYNC != 0 {
                image.file().sync_data()?;
            }
        }
    }
    Ok(())
}

fn transfer(target: &Target, direction: Direction, offset: u64, data: &Segments) -> Result<(), JobError> {
    let access = match direction {
        Direction::Read => Permissions::Write,
        Direction::Write => Permissions::Read,
    };
    let iovecs = data.iovecs(&target.memory, access)?;
    match target.image.route(offset, data.len()) {
        (_, Some(alignment)) if !alignment.fits(&iovecs) => {
            bounce(target, direction, offset, data, alignment)
        }
        // SAFETY: the iovecs are of guest memory, which `target` keeps mapped; the guest may change it meanwhile, which
        // the kernel does not mind.
        (file, _) => Ok(unsafe { move_all(file, target.write_flags, direction, offset, iovecs) }?),
    }
}

/// Moves data whose buffers direct I/O does not take, by one that it does.
fn bounce(
    target: &Target,
    direction: Direction,
    mut offset: u64,
    data: &Segments,
    alignment: Alignment,
) -> Result<(), JobError> {
    let mut buffer = Bounce::new(data.len(), alignment);
    let mut rest = data.clone();
    while !rest.is_empty() {
        let part = rest.take_front(Bounce::MAX_LEN);
        let bytes = buffer.front(part.len());
        if let Direction::Write = direction {
            part.read(&target.memory, bytes)?;
        }
        let iovec = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the iovec is of `bytes`, which nothing else uses until the call returns.
        unsafe {
            move_all(target.image.file(), target.write_flags, direction, offset, Iovecs::from_slice(&[iovec]))
        }?;
        if let Direction::Read = direction {
            part.write(&target.memory, bytes)?;
        }
        offset = offset.saturating_add(part.len());
    }
    Ok(())
}

/// Moves all of the data of `iovecs` from or to `file`.
///
/// # Safety
/// The iovecs must be of memory that stays until this returns, and that the kernel may read and write.
unsafe fn move_all(
    file: &File,
    write_flags: libc::c_int,
    direction: Direction,
    offset: u64,
    mut iovecs: Iovecs,
) -> io::Result<()> {
    let mut offset =
        libc::off64_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let fd = file.as_raw_fd();
    while !iovecs.is_empty() {
        // A chain has no more descriptors than IOV_MAX, but one may cross from one region of memory to the next.
        let count = libc::c_int::try_from(iovecs.len()).unwrap_or(libc::c_int::MAX).min(libc::UIO_MAXIOV);
        // SAFETY: there are `count` iovecs, of memory that the caller vouches for.
        let done = unsafe {
            match (direction, iovecs.as_slice()) {
                // The rule, and cheaper than a list of one.
                (Direction::Read, [piece]) => libc::pread64(fd, piece.iov_base, piece.iov_len, offset),
                (Direction::Write, [piece]) if write_flags == 0 => {
                    libc::pwrite64(fd, piece.iov_base, piece.iov_len, offset)
                }
                (Direction::Read, pieces) => libc::preadv64(fd, pieces.as_ptr(), count, offset),
                (Direction::Write, pieces) => libc::pwritev2(fd, pieces.as_ptr(), count, offset, write_flags),
            }
        };
        match usize::try_from(done) {
            // The file became shorter than it was when it was opened.
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(count) => {
                advance(&mut iovecs, count);
                offset = offset.saturating_add(done as libc::off64_t);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
