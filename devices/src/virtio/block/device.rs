use std::os::fd::AsRawFd;
use std::sync::Arc;

use log::{debug, info};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_S_IOERR,
    VIRTIO_BLK_S_OK,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;
use vm_memory::Bytes;
use vmm_sys_util::eventfd::EventFd;

use super::config::{BlockConfig, BlockConfigError, CacheType, IoEngine};
use super::engine::{Completion, Engine, Job, JobError, SyncEngine, Target, UringEngine};
use super::image::{Access, BlockError, DiskImage};
use super::layout::ConfigSpace;
use super::request::{self, Flush, ID_LEN, Limits, Operation, Reply};
use crate::metrics::BlockMetrics;
use crate::virtio::device::{Activation, BackendFd, DeviceError, DeviceEvent, VirtioDevice};
use crate::virtio::queue::VirtQueue;

/// The one virtqueue, requestq1.
const REQUEST_QUEUE: u16 = 0;
/// Descriptors of the virtqueue, and so the most requests that are under way.
pub const QUEUE_SIZE: u16 = 256;
const QUEUE_MAX_SIZES: [u16; 1] = [QUEUE_SIZE];
/// Token of the descriptor that io_uring completes on.
const COMPLETION_TOKEN: u32 = 0;

/// Requests that one call of `process` starts before other devices get their turn.
const MAX_REQUESTS_PER_CALL: usize = 64;
/// Bytes of data after which it starts no more: the synchronous engine moves them in the event loop.
const MAX_BYTES_PER_CALL: u64 = 16 << 20;
/// Bytes of data under way after which it starts no more: a reset, and the end of the VM, wait for all of them.
const MAX_BYTES_UNDER_WAY: u64 = 64 << 20;

/// What exists from DRIVER_OK to the next reset.
struct Active {
    queue: VirtQueue,
    engine: Box<dyn Engine>,
    done: Vec<Completion>,
    /// Bytes of data that the engine has.
    bytes_under_way: u64,
}

impl Active {
    /// Nothing is started until something is done, which the engine's descriptor tells.
    fn is_full(&self) -> bool {
        self.bytes_under_way >= MAX_BYTES_UNDER_WAY
    }
}

/// A block device on a raw disk image.
pub struct BlockDevice {
    image: Arc<DiskImage>,
    drive_id: String,
    io_engine: Option<IoEngine>,
    /// The host refused io_uring to a drive that can do without: it is not asked, nor complained of, at each reset.
    uring_refused: bool,
    /// io_uring's completions. None with the synchronous engine.
    completion_event: Option<EventFd>,
    features: u64,
    limits: Limits,
    config_space: ConfigSpace,
    metrics: Arc<BlockMetrics>,
    active: Option<Active>,
}

impl BlockDevice {
    /// Opens and locks the disk image that `config` names.
    ///
    /// # Errors
    /// [`BlockError`] when the configuration is wrong, or the file cannot be a disk, or is in use.
    pub fn open(config: &BlockConfig) -> Result<Self, BlockError> {
        config.validate()?;
        let id = || config.drive_id.clone();
        let path = config.path_on_host.as_ref().ok_or_else(|| BlockConfigError::NoPath { id: id() })?;
        let access = if config.is_read_only { Access::ReadOnly } else { Access::ReadWrite };
        let image = DiskImage::open(path, access)?;
        if config.io_engine == Some(IoEngine::Async) {
            UringEngine::probe().map_err(|source| BlockError::NoIoUring { id: id(), source })?;
        }
        let completion_event = match config.io_engine {
            Some(IoEngine::Sync) => None,
            Some(IoEngine::Async) | None => {
                let event =
                    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(BlockError::EventFd)?;
                Some(event)
            }
        };
        let flush = match config.cache_type {
            CacheType::Unsafe => Flush::NotOffered,
            CacheType::Writeback => Flush::Offered,
        };
        let limits = Limits { sectors: image.sectors(), access, flush };
        Ok(Self {
            // Header and status take a descriptor each.
            config_space: ConfigSpace::new(image.sectors(), u32::from(QUEUE_SIZE) - 2),
            features: features(&limits),
            limits,
            image: Arc::new(image),
            drive_id: id(),
            io_engine: config.io_engine,
            uring_refused: false,
            completion_event,
            metrics: Arc::default(),
            active: None,
        })
    }

    /// What this device counts.
    pub fn metrics(&self) -> Arc<BlockMetrics> {
        self.metrics.clone()
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.limits.sectors * request::SECTOR_SIZE
    }

    fn new_engine(&mut self, target: Target, queue_size: u16) -> Result<Box<dyn Engine>, DeviceError> {
        let event = self.completion_event.as_ref().filter(|_| !self.uring_refused);
        let Some(event) = event else { return Ok(Box::new(SyncEngine::new(target))) };
        match UringEngine::new(target.clone(), queue_size, event.as_raw_fd()) {
            Ok(engine) => Ok(Box::new(engine)),
            Err(source) if self.io_engine.is_some() => {
                Err(DeviceError::Backend { what: "cannot create an io_uring", source })
            }
            Err(error) => {
                info!("drive {} does its I/O synchronously: no io_uring: {error}", self.drive_id);
                self.uring_refused = true;
                Ok(Box::new(SyncEngine::new(target)))
            }
        }
    }

    /// The id as the guest reads it: its first 20 bytes, padded with zeroes (5.2.6).
    fn serial_number(&self) -> [u8; ID_LEN] {
        let mut serial = [0; ID_LEN];
        for (byte, id) in serial.iter_mut().zip(self.drive_id.bytes()) {
            *byte = id;
        }
        serial
    }

    /// Starts what the driver made available, and answers what is done already.
    fn process_queue(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        active.queue.disable_notifications()?;
        let (mut requests, mut bytes) = (0, 0);
        loop {
            while requests < MAX_REQUESTS_PER_CALL && bytes < MAX_BYTES_PER_CALL && !active.is_full() {
                let Some(moved) = self.start_next(active)? else { break };
                requests += 1;
                bytes += moved;
            }
            active
                .engine
                .submit()
                .map_err(|source| DeviceError::Backend { what: "cannot start requests", source })?;
            self.finish(active)?;
            if active.is_full() {
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

    /// Starts the next request, if there is one, and says how many bytes it moves.
    fn start_next(&self, active: &mut Active) -> Result<Option<u64>, DeviceError> {
        let Active { queue, engine, done: _, bytes_under_way } = active;
        let Some(mut chain) = queue.pop()? else { return Ok(None) };
        let head = chain.head;
        let broken = |message| DeviceError::Queue { queue: REQUEST_QUEUE, message };
        let reply = request::reply_to(&mut chain, queue.memory())
            .ok_or_else(|| broken(format!("chain at {head} has no byte in guest memory for a status")))?;
        match request::parse(chain, queue.memory(), &self.limits) {
            Err(refusal) => {
                self.metrics.invalid_requests.increment();
                answer(queue, reply, refusal.status())?;
                Ok(Some(0))
            }
            Ok(Operation::GetId { data }) => {
                let written = data.write(queue.memory(), &self.serial_number());
                let status = if written.is_ok() { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR };
                answer(queue, reply, status as u8)?;
                Ok(Some(0))
            }
            Ok(operation) => {
                let bytes = data_bytes(&operation);
                let job = Job { operation, reply };
                engine
                    .push(job)
                    .map_err(|job| broken(format!("chain at {} is under way already", job.reply.head)))?;
                *bytes_under_way += bytes;
                Ok(Some(bytes))
            }
        }
    }

    /// Answers what the engine has done.
    fn finish(&self, active: &mut Active) -> Result<(), DeviceError> {
        let Active { queue, engine, done, bytes_under_way } = active;
        let failed = |source| DeviceError::Backend { what: "cannot go on with a request", source };
        engine.take_completions(done).map_err(failed)?;
        if !done.is_empty()
            && let Some(event) = &self.completion_event
        {
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

/// Writes the status of a request and gives its chain back.
fn answer(queue: &mut VirtQueue, reply: Reply, status: u8) -> Result<(), DeviceError> {
    let Reply { head, status: address, data_len } = reply;
    // In guest memory, as was checked when the request came; memory does not go away.
    let _ = queue.memory().write_obj(status, address);
    // The used length counts bytes from the front (2.7.8): the status byte only when all data before it was written.
    let whole = u32::from(status) == VIRTIO_BLK_S_OK || data_len == 0;
    let written = if whole { data_len.saturating_add(1) } else { 0 };
    queue.add_used(head, written)
}

fn features(limits: &Limits) -> u64 {
    let mut features = 1 << VIRTIO_F_VERSION_1
        | 1 << VIRTIO_RING_F_EVENT_IDX
        | 1 << VIRTIO_RING_F_INDIRECT_DESC
        | 1 << VIRTIO_BLK_F_SIZE_MAX
        | 1 << VIRTIO_BLK_F_SEG_MAX
        | 1 << VIRTIO_BLK_F_BLK_SIZE
        | 1 << VIRTIO_BLK_F_TOPOLOGY;
    features |= match limits.access {
        Access::ReadOnly => 1 << VIRTIO_BLK_F_RO,
        Access::ReadWrite => 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
    };
    if limits.flush == Flush::Offered {
        features |= 1 << VIRTIO_BLK_F_FLUSH;
    }
    features
}

impl VirtioDevice for BlockDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn backend_fds(&self) -> Vec<BackendFd> {
        self.completion_event
            .iter()
            .map(|event| BackendFd::level(COMPLETION_TOKEN, event.as_raw_fd()))
            .collect()
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features } = activation;
        let Some(queue) = queues.into_iter().next() else { return Ok(()) };
        // A driver that does not know flush counts on every write being durable when it completes (5.2.6.2).
        let write_through = self.features & !features & 1 << VIRTIO_BLK_F_FLUSH != 0;
        let write_flags = if write_through { libc::RWF_DSYNC } else { 0 };
        let target = Target { image: self.image.clone(), memory: memory.clone(), write_flags };
        let queue = VirtQueue::new(REQUEST_QUEUE, queue, memory, interrupt);
        let engine = self.new_engine(target, queue.size())?;
        self.active = Some(Active { queue, engine, done: Vec::new(), bytes_under_way: 0 });
        Ok(())
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = match event {
            DeviceEvent::Queue(REQUEST_QUEUE) => self.process_queue(&mut active),
            DeviceEvent::Backend(COMPLETION_TOKEN) => {
                // Emptied before completions are taken, so that a later one is not lost. Nothing to read is fine.
                let _ = self.completion_event.as_ref().map(EventFd::read);
                let was_full = active.is_full();
                self.finish(&mut active).and_then(|()| {
                    if was_full && !active.is_full() {
                        // Notifications are off, and chains may be waiting.
                        self.process_queue(&mut active)
                    } else {
                        active.queue.notify_driver()
                    }
                })
            }
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => Ok(()),
        };
        self.active = Some(active);
        result
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        let Some(Active { mut queue, mut engine, mut done, bytes_under_way: _ }) = self.active.take() else {
            return Vec::new();
        };
        engine.drain(&mut done);
        for (job, result) in done {
            // A ring that the driver broke takes no answers, and nobody waits for them.
            if self.answer_job(&mut queue, &job, &result).is_err() {
                break;
            }
        }
        let _ = queue.notify_driver();
        let _ = self.completion_event.as_ref().map(EventFd::read);
        vec![queue.into_inner()]
    }
}
