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

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use vm_memory::Permissions;
use vmm_sys_util::eventfd::EventFd;

use super::{Completion, Drained, Engine, Job, JobError, Pushed, Target, advance, sync};
use crate::virtio::block::request::Operation;
use crate::virtio::segments::{Iovecs, OutsideMemory};

/// Times that the host may put a job off before it has failed.
const MAX_RETRIES: u8 = 16;
/// Jobs that are handed to the host by one system call at most. It keeps this many to one side, and as many as the queue has
/// on the other: completions beyond the ring it holds back until there is room.
const MAX_BATCH: u32 = 256;
/// How long to wait before the host is asked again to take jobs, or to wait for them.
const RETRY_DELAY: Duration = Duration::from_millis(1);
/// Times that a host that is short of memory is asked again while the ring is drained, before its jobs are done without it.
const MAX_DRAIN_RETRIES: u32 = 16;

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
    /// Heads of jobs that the submission queue has no room for yet.
    waiting: VecDeque<u16>,
    /// Jobs that did not need the ring.
    done: Vec<Completion>,
    /// Wakes the event loop, which has completions taken and jobs submitted then.
    completion_event: EventFd,
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
        completion_event: &EventFd,
    ) -> io::Result<Self> {
        let ring = IoUring::new(u32::from(queue_size).min(MAX_BATCH))?;
        ring.submitter().register_eventfd(completion_event.as_raw_fd())?;
        let in_flight = (0..queue_size).map(|_| None).collect();
        let without_waiting = WithoutWaiting::on(&target);
        Ok(Self {
            ring,
            target,
            in_flight,
            in_flight_count: 0,
            waiting: VecDeque::new(),
            done: Vec::new(),
            completion_event: completion_event.try_clone()?,
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

    /// Has `flight` submitted.
    fn start(&mut self, flight: Box<InFlight>) {
        let head = flight.job.reply.head;
        let Some(slot) = self.in_flight.get_mut(usize::from(head)) else { return };
        *slot = Some(flight);
        self.in_flight_count += 1;
        if !self.queue(head) {
            self.waiting.push_back(head);
        }
    }

    /// Puts the job of `head` into the submission queue; false when that is full.
    fn queue(&mut self, head: u16) -> bool {
        let Some(Some(flight)) = self.in_flight.get(usize::from(head)) else { return true };
        let entry = entry(flight, &self.target).user_data(u64::from(head));
        // SAFETY: `entry` names the open disk and iovecs that `in_flight` holds, unchanged, until the completion is
        // taken. They are of guest memory that `target` keeps mapped, and `drop` waits for the last completion.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }

    /// Moves jobs that wait into the submission queue, as far as there is room.
    fn queue_waiting(&mut self) {
        while let Some(head) = self.waiting.pop_front() {
            if !self.queue(head) {
                self.waiting.push_front(head);
                break;
            }
        }
    }

    /// Whether jobs are yet to be submitted.
    fn has_unsubmitted(&mut self) -> bool {
        !self.waiting.is_empty() || !self.ring.submission().is_empty()
    }

    /// The host is short of memory, or of room for completions: the jobs stay in the queue. A completion wakes the event
    /// loop, which submits again; if none is due, it is woken here.
    fn retry_later(&mut self, error: &io::Error) {
        log::debug!("io_uring takes no jobs just now, and is asked again: {error}");
        if self.owned_by_kernel() == 0 {
            thread::sleep(RETRY_DELAY);
            // Fails only when the counter is full, and then the loop wakes up all the same.
            let _ = self.completion_event.write(1);
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
        self.in_flight_count.saturating_sub(self.ring.submission().len() + self.waiting.len())
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
        let cached = !target.image.is_direct();
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

/// Whether data can go between the disk and these buffers without the help of [`sync`].
fn goes_as_it_lies(target: &Target, iovecs: &Iovecs, offset: u64) -> bool {
    let len = iovecs.iter().map(|iovec| iovec.iov_len as u64).sum();
    match target.image.route(offset, len) {
        (_, Some(alignment)) => alignment.fits(iovecs),
        (file, None) => file.as_raw_fd() == target.image.file().as_raw_fd(),
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
            Ok((iovecs, offset)) if !goes_as_it_lies(&self.target, &iovecs, offset) => {
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
        loop {
            self.queue_waiting();
            if self.ring.submission().is_empty() {
                return Ok(());
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => {
                    self.retry_later(&error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take_completions(&mut self, done: &mut Vec<Completion>) -> io::Result<bool> {
        let signalled = self.in_flight_count > 0 && self.reap();
        done.append(&mut self.done);
        if self.has_unsubmitted() {
            // The rest of what was done in part, and what the host did not take before.
            self.submit()?;
        }
        Ok(signalled)
    }

    fn drain(&mut self, done: &mut Vec<Completion>) -> Drained {
        let mut retries = 0;
        // The host owns guest memory until its jobs are done, so there is no giving up on those that it took.
        while !self.abandoned {
            self.reap();
            self.queue_waiting();
            if self.owned_by_kernel() == 0 && !self.has_unsubmitted() {
                break;
            }
            if let Err(error) = self.ring.submit_and_wait(1) {
                retries += u32::from(is_transient(&error));
                let goes_on = error.kind() == io::ErrorKind::Interrupted
                    || is_transient(&error) && retries < MAX_DRAIN_RETRIES;
                self.abandoned = self.owned_by_kernel() == 0 && !goes_on;
                thread::sleep(RETRY_DELAY);
            }
        }
        // What the host did not take is done without the ring.
        self.waiting.clear();
        for flight in self.in_flight.iter_mut().filter_map(Option::take) {
            let result = sync::perform(&self.target, &flight.job.operation);
            self.done.push((flight.job, result));
        }
        self.in_flight_count = 0;
        done.append(&mut self.done);
        if self.abandoned { Drained::Spent } else { Drained::Ready }
    }
}

/// Whether io_uring_enter(2) may succeed when it is tried again: EAGAIN is a shortage of memory, EBUSY one of room for
/// completions.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        self.drain(&mut Vec::new());
    }
}
