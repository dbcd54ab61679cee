//! What the device does when it is woken up: starts what the driver made available, and answers what is done.

use log::debug;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};
use vmm_sys_util::eventfd::EventFd;

use super::device::{Active, BlockDevice, REQUEST_QUEUE};
use super::engine::{Drained, Job, JobError, Pushed};
use super::request::{self, ID_LEN, Operation, Reply};
use crate::virtio::device::DeviceError;
use crate::virtio::queue::VirtQueue;
use crate::virtio::ring_memory;

/// Requests that one call of `process` starts before other devices get their turn.
const MAX_REQUESTS_PER_CALL: usize = 64;
/// Bytes of data, or of zeroes, after which it starts no more: the synchronous engine moves them in the event loop.
const MAX_BYTES_PER_CALL: u64 = 16 << 20;

/// What became of the next request.
enum Next {
    /// It was started, or answered at once, and moves this many bytes.
    Started(u64),
    /// There is none.
    Empty,
    /// It stays in the ring until the rate limiter lets it pass.
    Limited,
}

impl BlockDevice {
    /// The id as the guest reads it: its first 20 bytes, padded with zeroes (5.2.6).
    fn serial_number(&self) -> [u8; ID_LEN] {
        let mut serial = [0; ID_LEN];
        for (byte, id) in serial.iter_mut().zip(self.drive_id.bytes()) {
            *byte = id;
        }
        serial
    }

    /// Starts what the driver made available, and answers what is done already.
    pub(super) fn process_queue(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if self.limiter.is_blocked() {
            // Notifications are off, and the limiter's descriptor tells when to look again.
            return Ok(());
        }
        active.queue.disable_notifications()?;
        let (mut requests, mut bytes) = (0, 0);
        loop {
            while requests < MAX_REQUESTS_PER_CALL && bytes < MAX_BYTES_PER_CALL && !active.is_full() {
                match self.start_next(active)? {
                    Next::Started(moved) => bytes += moved,
                    Next::Empty | Next::Limited => break,
                }
                requests += 1;
            }
            active
                .engine
                .submit()
                .map_err(|source| DeviceError::Backend { what: "cannot start requests", source })?;
            self.finish(active)?;
            if active.is_full() || self.limiter.is_blocked() {
                break;
            }
            if requests >= MAX_REQUESTS_PER_CALL || bytes >= MAX_BYTES_PER_CALL {
                active.queue.continue_later();
                break;
            }
            if !active.queue.enable_notifications()? {
                break;
            }
            // Counts as a request: a driver may move the index to and fro.
            requests += 1;
        }
        active.queue.notify_driver()
    }

    /// Starts the next request, if there is one and its time has come.
    fn start_next(&mut self, active: &mut Active) -> Result<Next, DeviceError> {
        let Active { queue, engine, target: _, interrupt: _, done: _, bytes_under_way } = active;
        let Some(mut chain) = queue.pop()? else { return Ok(Next::Empty) };
        let head = chain.head;
        let broken = |message| DeviceError::Queue { queue: REQUEST_QUEUE, message };
        let reply = request::reply_to(&mut chain, queue.memory())
            .ok_or_else(|| broken(format!("chain at {head} has no byte in guest memory for a status")))?;
        let operation = request::parse(chain, queue.memory(), &self.limits);
        let bytes = operation.as_ref().map_or(0, data_bytes);
        let moved = operation.as_ref().map_or(0, moved_bytes);
        if !self.limiter.take(bytes) {
            queue.unpop(1);
            self.metrics.limited.increment();
            return Ok(Next::Limited);
        }
        match operation {
            Err(refusal) => {
                self.metrics.invalid_requests.increment();
                answer(queue, reply, refusal.status())?;
            }
            Ok(Operation::GetId { data }) => {
                let written = data.write(queue.memory(), &self.serial_number());
                let status = if written.is_ok() { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR };
                answer(queue, reply, status as u8)?;
            }
            Ok(operation) => {
                match engine.push(Job { operation, reply }) {
                    // The driver sees it at once, and goes on with it while the next one is served.
                    Pushed::Done((job, result)) => self.answer_job(queue, &job, &result)?,
                    Pushed::UnderWay => *bytes_under_way += bytes,
                    Pushed::Refused(job) => {
                        return Err(broken(format!("chain at {} is under way already", job.reply.head)));
                    }
                }
            }
        }
        Ok(Next::Started(moved))
    }

    /// Answers what the engine has done.
    pub(super) fn finish(&self, active: &mut Active) -> Result<(), DeviceError> {
        let Active { queue, engine, target: _, interrupt: _, done, bytes_under_way } = active;
        let failed = |source| DeviceError::Backend { what: "cannot go on with a request", source };
        let signalled = engine.take_completions(done).map_err(failed)?;
        if signalled && let Some(event) = &self.completion_event {
            // What completed while it was started has signalled as well: taken back, or the event loop would wake for
            // nothing. What completes after this signals again, what completed before is taken by the next line.
            let _ = event.read();
            engine.take_completions(done).map_err(failed)?;
        }
        for (job, result) in done.drain(..) {
            *bytes_under_way = bytes_under_way.saturating_sub(data_bytes(&job.operation));
            self.answer_job(queue, &job, &result)?;
        }
        Ok(())
    }

    /// Waits for what is under way and answers it. Whether the engine takes more after this.
    ///
    /// # Errors
    /// When the driver broke the ring, which then takes no answers.
    pub(super) fn finish_all(&self, active: &mut Active) -> Result<Drained, DeviceError> {
        let Active { queue, engine, target: _, interrupt: _, done, bytes_under_way } = active;
        let drained = engine.drain(done);
        *bytes_under_way = 0;
        let _ = self.completion_event.as_ref().map(EventFd::read);
        if !done.is_empty() {
            done.drain(..).try_for_each(|(job, result)| self.answer_job(queue, &job, &result))?;
            queue.notify_driver()?;
        }
        Ok(drained)
    }

    fn count(&self, done: &Operation) {
        let metrics = &self.metrics;
        match done {
            Operation::Read { data, .. } => {
                metrics.reads.increment();
                metrics.read_bytes.add(data.len());
            }
            Operation::Write { data, .. } => {
                metrics.writes.increment();
                metrics.written_bytes.add(data.len());
            }
            Operation::Flush => metrics.flushes.increment(),
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => metrics.discards.increment(),
            Operation::GetId { .. } => {}
        }
    }

    fn answer_job(
        &self,
        queue: &mut VirtQueue,
        job: &Job,
        result: &Result<(), JobError>,
    ) -> Result<(), DeviceError> {
        let Job { operation, reply } = job;
        if let Operation::Read { data, .. } = operation {
            // Also of a read that failed: the host may have written a part.
            data.mark_dirty(queue.memory(), data.len());
        }
        let status = match result {
            Ok(()) => {
                self.count(operation);
                VIRTIO_BLK_S_OK
            }
            Err(error) => {
                match error {
                    JobError::Guest(_) => self.metrics.invalid_requests.increment(),
                    JobError::Host(_) => self.metrics.host_errors.increment(),
                }
                debug!("drive {}: request failed: {error}", self.drive_id);
                VIRTIO_BLK_S_IOERR
            }
        };
        answer(queue, *reply, status as u8)
    }
}

/// Bytes that an operation moves between disk and guest.
fn data_bytes(operation: &Operation) -> u64 {
    match operation {
        Operation::Read { data, .. } | Operation::Write { data, .. } => data.len(),
        _ => 0,
    }
}

/// Bytes that an operation keeps the host busy with. Zeroes are written in place, by a host that cannot do otherwise.
fn moved_bytes(operation: &Operation) -> u64 {
    match operation {
        Operation::WriteZeroes { len, .. } => *len,
        _ => data_bytes(operation),
    }
}

/// Writes the status of a request and gives its chain back.
fn answer(queue: &mut VirtQueue, reply: Reply, status: u8) -> Result<(), DeviceError> {
    let Reply { head, status: address, data_len } = reply;
    // In guest memory, as was checked when the request came; memory does not go away.
    let _ = ring_memory::write(queue.memory(), address, status);
    // The used length counts bytes from the front (2.7.8): the status byte only when all data before it was written.
    let whole = u32::from(status) == VIRTIO_BLK_S_OK || data_len == 0;
    let written = if whole { data_len.saturating_add(1) } else { 0 };
    queue.add_used(head, written)
}
