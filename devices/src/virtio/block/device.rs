use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use log::info;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::config::{BlockConfig, BlockConfigError, CacheType, IoEngine};
use super::engine::{Completion, Drained, Engine, SyncEngine, Target, UringEngine};
use super::error::BlockError;
use super::image::{Access, DiskImage, PageCache, Purpose};
use super::layout::ConfigSpace;
use super::request::{self, Flush, Limits};
use crate::metrics::BlockMetrics;
use crate::rate_limiter::{RateLimiter, RateLimiterConfig};
use crate::state::StateError;
use crate::virtio::device::{
    Activation, BackendFd, DeviceError, DeviceEvent, DeviceInterrupt, QueuePosition, VirtioDevice,
};
use crate::virtio::queue::VirtQueue;
use crate::virtio::state::DeviceState;

/// The one virtqueue, requestq1.
pub(super) const REQUEST_QUEUE: u16 = 0;
/// Descriptors of the virtqueue: three pieces of 320 pages each, or 341 requests of one.
///
/// Indirect tables are not offered. With them Linux allocates a table for every request, however short, and the device reads
/// one descriptor more; a tenth of the throughput of small reads went there. The ring is longer instead.
pub const QUEUE_SIZE: u16 = 1024;
const QUEUE_MAX_SIZES: [u16; 1] = [QUEUE_SIZE];
/// Token of the descriptor that io_uring completes on.
pub(super) const COMPLETION_TOKEN: u32 = 0;
/// Token of the rate limiter's descriptor.
const LIMITER_TOKEN: u32 = 1;

/// Bytes of data under way after which it starts no more: a reset, and the end of the VM, wait for all of them.
const MAX_BYTES_UNDER_WAY: u64 = 64 << 20;

/// What exists from DRIVER_OK to the next reset.
pub(super) struct Active {
    pub queue: VirtQueue,
    pub engine: Box<dyn Engine>,
    /// What the engine works on.
    pub target: Target,
    pub interrupt: Arc<dyn DeviceInterrupt>,
    /// Jobs that were done and not answered yet.
    pub done: Vec<Completion>,
    /// Bytes of data that the engine has.
    pub bytes_under_way: u64,
}

impl Active {
    /// Nothing is started until something is done, which the engine's descriptor tells.
    pub(super) fn is_full(&self) -> bool {
        self.bytes_under_way >= MAX_BYTES_UNDER_WAY
    }
}

/// A block device on a raw disk image.
pub struct BlockDevice {
    pub(super) image: Arc<DiskImage>,
    pub(super) purpose: Purpose,
    pub(super) drive_id: String,
    pub(super) io_engine: Option<IoEngine>,
    /// The host refused io_uring to a drive that can do without: it is not asked, nor complained of, at each reset.
    pub(super) uring_refused: bool,
    /// io_uring's completions. None with the synchronous engine.
    pub(super) completion_event: Option<EventFd>,
    pub(super) limiter: RateLimiter,
    pub(super) features: u64,
    pub(super) limits: Limits,
    pub(super) config_space: ConfigSpace,
    /// The configuration space changed while no driver was there that could be told.
    pub(super) config_changed: bool,
    pub(super) metrics: Arc<BlockMetrics>,
    pub(super) active: Option<Active>,
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
        let page_cache = if config.direct { PageCache::Bypassed } else { PageCache::Used };
        let purpose = Purpose { access, page_cache };
        let image = DiskImage::open(path, purpose)?;
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
        let block_size = super::SECTOR_SIZE as u32;
        let limits = Limits { sectors: image.sectors(), access, flush, block_size };
        let no_limits = RateLimiterConfig::default();
        let limiter = RateLimiter::new(config.rate_limiter.as_ref().unwrap_or(&no_limits))
            .map_err(BlockError::RateLimiter)?;
        Ok(Self {
            config_space: ConfigSpace::new(image.sectors(), block_size),
            config_changed: false,
            features: features(&limits),
            limits,
            limiter,
            image: Arc::new(image),
            purpose,
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

    /// Waits for what is under way and answers it; what comes then finds an engine that takes it.
    fn finish_and_go_on(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let was_full = active.is_full();
        if self.finish_all(active)? == Drained::Spent {
            active.engine =
                self.new_engine(active.target.clone(), active.queue.size()).map_err(no_io_uring)?;
        }
        if was_full {
            // Notifications are off, and chains may be waiting.
            active.queue.continue_later();
        }
        Ok(())
    }

    /// # Errors
    /// What the host said when it refused io_uring to a drive that was to use it.
    pub(super) fn new_engine(&mut self, target: Target, queue_size: u16) -> io::Result<Box<dyn Engine>> {
        let never_waits = self.io_engine.is_none() && target.image.in_memory();
        let event = self.completion_event.as_ref().filter(|_| !self.uring_refused && !never_waits);
        let Some(event) = event else { return Ok(Box::new(SyncEngine::new(target))) };
        match UringEngine::new(target.clone(), queue_size, event) {
            Ok(engine) => Ok(Box::new(engine)),
            Err(error) if self.io_engine.is_some() => Err(error),
            Err(error) => {
                info!("drive {} does its I/O synchronously: no io_uring: {error}", self.drive_id);
                self.uring_refused = true;
                Ok(Box::new(SyncEngine::new(target)))
            }
        }
    }
}

fn no_io_uring(source: io::Error) -> DeviceError {
    DeviceError::Backend { what: "cannot create an io_uring", source }
}

fn features(limits: &Limits) -> u64 {
    let mut features = 1 << VIRTIO_F_VERSION_1
        | 1 << VIRTIO_RING_F_EVENT_IDX
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

    fn former_features(&self) -> u64 {
        1 << VIRTIO_BLK_F_SIZE_MAX
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn backend_fds(&self) -> Vec<BackendFd> {
        let completions =
            self.completion_event.iter().map(|event| BackendFd::level(COMPLETION_TOKEN, event.as_raw_fd()));
        completions.chain([BackendFd::level(LIMITER_TOKEN, self.limiter.fd())]).collect()
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features } = activation;
        let Some(queue) = queues.into_iter().next() else { return Ok(()) };
        // A driver that does not know flush counts on every write being durable when it completes (5.2.6.2).
        let write_through = self.features & !features & 1 << VIRTIO_BLK_F_FLUSH != 0;
        let write_flags = if write_through { libc::RWF_DSYNC } else { 0 };
        let target = Target { image: self.image.clone(), memory: memory.clone(), write_flags };
        let queue = VirtQueue::new(REQUEST_QUEUE, queue, memory, interrupt.clone());
        let engine = self.new_engine(target.clone(), queue.size()).map_err(no_io_uring)?;
        if std::mem::take(&mut self.config_changed) {
            interrupt.signal_config_change();
        }
        self.active = Some(Active { queue, engine, target, interrupt, done: Vec::new(), bytes_under_way: 0 });
        Ok(())
    }

    /// The host shows a completion first and signals it then: of one that a reset has taken, the signal can come after it.
    fn ignore(&mut self, token: u32) {
        if token == COMPLETION_TOKEN {
            let _ = self.completion_event.as_ref().map(EventFd::read);
        }
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
            DeviceEvent::Backend(LIMITER_TOKEN) => {
                self.limiter.wake();
                self.process_queue(&mut active)
            }
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => Ok(()),
        };
        self.active = Some(active);
        result
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.limiter.disarm();
        let Some(mut active) = self.active.take() else { return Vec::new() };
        // A ring that the driver broke takes no answers, and nobody waits for them.
        let _ = self.finish_all(&mut active);
        vec![active.queue.into_inner()]
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = self.finish_and_go_on(&mut active);
        self.active = Some(active);
        result
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        self.active.iter().map(|active| active.queue.position(0)).collect()
    }

    fn save(&self) -> DeviceState {
        DeviceState::BlockV1(self.saved())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::BlockV1(state) = state else { return Err(state.is_not("a block device")) };
        self.take_over(state)
    }
}
