//! io_uring: the jobs of a batch are started by one system call, and complete on an eventfd.
//!
//! Data that the page cache has, or has room for, does not wait: it is moved at once by a system call of its own, which
//! costs less than a job of the ring and its completion. What would wait goes to the ring.
//!
//! Discards, zeroings and data that direct I/O does not take as it lies are rare and are done in place, as in the other
//! engine.
//!
//! The disk's descriptor is not registered with the ring, though that would save a little of each job: the kernel
//! takes a ring apart some time after its last descriptor is closed, and would keep the disk open, and locked, until
//! then.
#![expect(unsafe_code, reason = "io_uring reads and writes guest memory")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use vm_memory::Permissions;

use super::{Completion, Drained, Engine, Job, JobError, Pushed, Target, advance, sync};
use crate::virtio::block::request::Operation;
use crate::virtio::segments::{Iovecs, OutsideMemory};

/// Times that the host may put a job off before it has failed.
const MAX_RETRIES: u8 = 16;
/// Jobs that are handed to the host by one system call at most. It keeps this many to one side, and as many as the queue has
/// on the other: completions beyond the ring it holds back until there is room.
const MAX_BATCH: u32 = 256;
/// How long to wait before the host is asked again to wait for its jobs.
const RETRY_DELAY: Duration = Duration::from_millis(1);

struct InFlight {
    job: Job,
    /// What is left of the data. The kernel reads this until the job is done, so the vector is changed only then.
    iovecs: Iovecs,
    offset: u64,
    retries: u8,
}

// SAFETY: the pointers in `iovecs` are of guest memory, which any thread may use, and which `Target` keeps mapped.
unsafe impl Send for InFlight {}

/// Does jobs by io_uring.
pub(in crate::virtio::block) struct UringEngine {
    ring: IoUring,
    target: Target,
    /// Jobs under way, by the head of their chain.
    in_flight: Vec<Option<Box<InFlight>>>,
    in_flight_count: usize,
    /// Jobs that did not need the ring.
    done: Vec<Completion>,
    /// Which transfers the file system can do without waiting, as far as is known.
    without_waiting: WithoutWaiting,
    /// The host refused the ring when it was drained. What is still in it names memory that is gone: it is never
    /// entered again.
    abandoned: bool,
}

impl UringEngine {
    /// An engine for `target` and a queue of `queue_size` descriptors, which is also the most jobs that are under
    /// way. `completion_event` is written when one is done.
    ///
    /// # Errors
    /// When the host has no io_uring for us.
    pub(in crate::virtio::block) fn new(
        target: Target,
        queue_size: u16,
        completion_event: RawFd,
    ) -> io::Result<Self> {
        let ring = IoUring::new(u32::from(queue_size).min(MAX_BATCH))?;
        ring.submitter().register_eventfd(completion_event)?;
        let in_flight = (0..queue_size).map(|_| None).collect();
        let without_waiting = WithoutWaiting::on(&target);
        Ok(Self {
            ring,
            target,
            in_flight,
            in_flight_count: 0,
            done: Vec::new(),
            without_waiting,
            abandoned: false,
        })
    }

    /// Whether the host has io_uring for us.
    ///
    /// # Errors
    /// What it said if not.
    pub(in crate::virtio::block) fn probe() -> io::Result<()> {
        IoUring::new(1).map(drop)
    }

    /// Puts `flight` into the submission queue.
    fn start(&mut self, flight: Box<InFlight>) {
        let head = flight.job.reply.head;
        let Some(slot) = self.in_flight.get_mut(usize::from(head)) else { return };
        let flight = slot.insert(flight);
        self.in_flight_count += 1;
        let entry = entry(flight, &self.target).user_data(u64::from(head));
        // SAFETY: `entry` names the open disk and iovecs that `in_flight` holds, unchanged, until the completion is
        // taken. They are of guest memory that `target` keeps mapped, and `drop` waits for the last completion.
        let mut pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() && self.ring.submit().is_ok() {
            // SAFETY: as above.
            pushed = unsafe { self.ring.submission().push(&entry) };
        }
        if pushed.is_err()
            && let Some(flight) = slot.take()
        {
            // The host takes no more just now.
            self.in_flight_count -= 1;
            self.done.push((flight.job, Err(io::Error::from_raw_os_error(libc::EBUSY).into())));
        }
    }

    fn complete(&mut self, head: u64, result: i32) {
        let slot = usize::try_from(head).ok().and_then(|head| self.in_flight.get_mut(head));
        let Some(mut flight) = slot.and_then(Option::take) else { return };
        self.in_flight_count -= 1;
        let error = match usize::try_from(result) {
            Ok(count) => match advance(&mut flight.iovecs, count) {
                0 => None,
                // The file became shorter than it was when it was opened.
                _ if count == 0 => Some(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => {
                    flight.offset += count as u64;
                    return self.start(flight);
                }
            },
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) && flight.retries < MAX_RETRIES => {
                flight.retries += 1;
                return self.start(flight);
            }
            Err(_) => Some(io::Error::from_raw_os_error(-result)),
        };
        let outcome = error.map_or(Ok(()), |error| Err(error.into()));
        self.done.push((flight.job, outcome));
    }

    /// Takes what the ring has completed. True when there was something.
    fn reap(&mut self) -> bool {
        let completed: Vec<(u64, i32)> =
            self.ring.completion().map(|entry: cqueue::Entry| (entry.user_data(), entry.result())).collect();
        for (head, result) in &completed {
            self.complete(*head, *result);
        }
        !completed.is_empty()
    }

    /// Jobs that the kernel has.
    fn owned_by_kernel(&mut self) -> usize {
        self.in_flight_count.saturating_sub(self.ring.submission().len())
    }
}

/// Which transfers to try with RWF_NOWAIT.
struct WithoutWaiting {
    reads: bool,
    writes: bool,
}

impl WithoutWaiting {
    /// Direct I/O always waits for the disk, and so does a write that is to be durable.
    fn on(target: &Target) -> Self {
        let cached = target.image.alignment().is_none();
        Self { reads: cached, writes: cached && target.write_flags == 0 }
    }

    /// Moves the data of `flight`, or the front of it, if that does not wait. True when all of it was moved.
    fn move_data(&mut self, flight: &mut InFlight, target: &Target) -> bool {
        let InFlight { job, iovecs, offset, retries: _ } = flight;
        let Ok(at) = libc::off64_t::try_from(*offset) else { return false };
        let count = libc::c_int::try_from(iovecs.len()).unwrap_or(libc::c_int::MAX).min(libc::UIO_MAXIOV);
        let fd = target.image.file().as_raw_fd();
        let wanted = match job.operation {
            Operation::Read { .. } => &mut self.reads,
            Operation::Write { .. } => &mut self.writes,
            _ => return false,
        };
        if !*wanted {
            return false;
        }
        // SAFETY: the first `count` iovecs are of guest memory, which `target` keeps mapped; the guest may change it
        // meanwhile, which the kernel does not mind.
        let moved = unsafe {
            if let Operation::Read { .. } = job.operation {
                libc::preadv2(fd, iovecs.as_ptr(), count, at, libc::RWF_NOWAIT)
            } else {
                libc::pwritev2(fd, iovecs.as_ptr(), count, at, libc::RWF_NOWAIT)
            }
        };
        if let Ok(moved) = usize::try_from(moved) {
            *offset += moved as u64;
            return advance(iovecs, moved) == 0;
        }
        *wanted = io::Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP);
        false
    }
}

fn entry(flight: &InFlight, target: &Target) -> squeue::Entry {
    let disk = types::Fd(target.image.file().as_raw_fd());
    let InFlight { job, iovecs, offset, retries: _ } = flight;
    let count = iovecs.len() as u32;
    match job.operation {
        Operation::Read { .. } => opcode::Readv::new(disk, iovecs.as_ptr(), count).offset(*offset).build(),
        Operation::Write { .. } => opcode::Writev::new(disk, iovecs.as_ptr(), count)
            .offset(*offset)
            .rw_flags(target.write_flags)
            .build(),
        _ => opcode::Fsync::new(disk).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

impl Engine for UringEngine {
    fn push(&mut self, job: Job) -> Pushed {
        let free = self.in_flight.get(usize::from(job.reply.head)).is_some_and(Option::is_none);
        if !free {
            return Pushed::Refused(job);
        }
        let memory = &self.target.memory;
        let prepared: Result<_, OutsideMemory> = match &job.operation {
            Operation::Read { offset, data } => {
                data.iovecs(memory, Permissions::Write).map(|iovecs| (iovecs, *offset))
            }
            Operation::Write { offset, data } => {
                data.iovecs(memory, Permissions::Read).map(|iovecs| (iovecs, *offset))
            }
            Operation::Flush => Ok((Iovecs::new(), 0)),
            operation => {
                let result = sync::perform(&self.target, operation);
                return Pushed::Done((job, result));
            }
        };
        match prepared {
            Ok((iovecs, _)) if self.target.image.alignment().is_some_and(|wanted| !wanted.fits(&iovecs)) => {
                let result = sync::perform(&self.target, &job.operation);
                Pushed::Done((job, result))
            }
            Ok((iovecs, offset)) => {
                let mut flight = Box::new(InFlight { job, iovecs, offset, retries: 0 });
                if self.without_waiting.move_data(&mut flight, &self.target) {
                    return Pushed::Done((flight.job, Ok(())));
                }
                self.start(flight);
                Pushed::UnderWay
            }
            Err(outside) => Pushed::Done((job, Err(JobError::Guest(outside)))),
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_completions(&mut self, done: &mut Vec<Completion>) -> io::Result<bool> {
        let signalled = self.in_flight_count > 0 && self.reap();
        done.append(&mut self.done);
        if signalled {
            // The rest of what was done in part.
            self.submit()?;
        }
        Ok(signalled)
    }

    fn drain(&mut self, done: &mut Vec<Completion>) -> Drained {
        // The host owns guest memory until its jobs are done, so there is no giving up on those that it took.
        while !self.abandoned {
            self.reap();
            if self.owned_by_kernel() == 0 && self.ring.submission().is_empty() {
                break;
            }
            if let Err(error) = self.ring.submit_and_wait(1) {
                if self.owned_by_kernel() == 0 && error.kind() != io::ErrorKind::Interrupted {
                    self.abandoned = true;
                }
                thread::sleep(RETRY_DELAY);
            }
        }
        for flight in self.in_flight.iter_mut().filter_map(Option::take) {
            self.done.push((flight.job, Err(io::Error::from_raw_os_error(libc::ECANCELED).into())));
        }
        self.in_flight_count = 0;
        done.append(&mut self.done);
        if self.abandoned { Drained::Spent } else { Drained::Ready }
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        self.drain(&mut Vec::new());
    }
}
