use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;
use vmm_sys_util::timerfd::TimerFd;

use super::config::{self, BalloonConfig, BalloonConfigError};
use super::layout::ConfigSpace;
use super::replaced::Replaced;
use super::state::BalloonStateV1;
use super::statistics::{self, BalloonStatistics};
use super::{PAGE_SIZE, discard, ranges};
use crate::metrics::BalloonMetrics;
use crate::state::StateError;
use crate::virtio::device::{
    Activation, BackendFd, DeviceError, DeviceEvent, DeviceInterrupt, QueuePosition, VirtioDevice,
};
use crate::virtio::queue::{Chain, VirtQueue};
use crate::virtio::state::DeviceState;

/// Feature bits (virtio 1.3, 5.5.3).
const VIRTIO_BALLOON_F_STATS_VQ: u32 = 1;
const VIRTIO_BALLOON_F_DEFLATE_ON_OOM: u32 = 2;
const VIRTIO_BALLOON_F_PAGE_POISON: u32 = 4;
const VIRTIO_BALLOON_F_PAGE_REPORTING: u32 = 5;

/// Virtqueues (5.5.2). Linux leaves out those whose feature is off and counts on without a gap, against the
/// specification: without a queue for hints its reports come in the one where those should.
const INFLATE_QUEUE: u16 = 0;
const DEFLATE_QUEUE: u16 = 1;
const STATS_QUEUE: u16 = 2;
const QUEUE_MAX_SIZES: [u16; 5] = [128; 5];
const QUEUES_WITHOUT_REPORTING: usize = 3;
/// Token of the timer that asks for statistics.
const TIMER_TOKEN: u32 = 0;

/// Pages that one request of the driver can name; the rest of a longer one is ignored. Linux names 256.
pub const MAX_PAGES_PER_CHAIN: usize = 4096;
/// Bytes that one report of free pages can name; the rest of a longer one is ignored. Linux names 32 blocks of up to
/// 4 MiB.
pub const MAX_REPORTED_BYTES_PER_CHAIN: u64 = 1 << 30;
/// Pages that one call takes before other devices get their turn.
const MAX_PAGES_PER_CALL: usize = 4096;
/// Requests to take pages out of the balloon that one call answers.
const MAX_DEFLATIONS_PER_CALL: usize = 64;
/// Ranges of reported pages that one call drops.
const MAX_RANGES_PER_CALL: usize = 256;
/// Bytes of a range that cost as much as a range of their own: the largest block that Linux names.
const BYTES_LIKE_A_RANGE: u64 = 4 << 20;
/// Buffers with statistics that one call looks at; a driver has one.
const MAX_STATISTICS_PER_CALL: usize = 16;

/// Why the balloon refuses what it is asked to do.
#[derive(Debug, thiserror::Error)]
pub enum BalloonError {
    /// A size that cannot be.
    #[error(transparent)]
    Config(#[from] BalloonConfigError),
    /// Nobody asks the guest for statistics.
    #[error("balloon: no statistics are asked for; set stats_polling_interval_s to a number of seconds")]
    StatisticsOff,
    /// The host gave no timer.
    #[error("balloon: no timer for the statistics")]
    Timer(#[source] io::Error),
}

/// What exists from DRIVER_OK to the next reset.
struct Active {
    queues: Vec<VirtQueue>,
    interrupt: Arc<dyn DeviceInterrupt>,
    features: u64,
    /// The driver's buffer for statistics, which it gets back when the next ones are wanted.
    statistics_head: Option<u16>,
}

impl Active {
    fn negotiated(&self, feature: u32) -> bool {
        self.features & 1 << feature != 0
    }

    /// Gives the driver its buffer back, which asks for the next statistics.
    fn ask_for_statistics(&mut self) -> Result<(), DeviceError> {
        if let Some(queue) = self.queues.get_mut(usize::from(STATS_QUEUE))
            && let Some(head) = self.statistics_head.take()
        {
            queue.add_used(head, 0)?;
            queue.notify_driver()?;
        }
        Ok(())
    }
}

/// A balloon in a guest's memory.
pub struct BalloonDevice {
    config: BalloonConfig,
    memory_mib: u64,
    space: ConfigSpace,
    statistics: BalloonStatistics,
    timer: TimerFd,
    metrics: Arc<BalloonMetrics>,
    /// Lives as long as guest memory, whatever drivers come and go.
    replaced: Replaced,
    /// A driver that was restored has been asked for another size.
    retargeted: bool,
    active: Option<Active>,
}

impl BalloonDevice {
    /// A balloon for a guest with `memory_mib` MiB of memory.
    ///
    /// # Errors
    /// When `config` is not valid, or the host has no descriptor for a timer.
    pub fn new(config: &BalloonConfig, memory_mib: u64) -> Result<Self, BalloonError> {
        config.validate(memory_mib)?;
        let mut space = ConfigSpace::default();
        space.set_num_pages(config::pages(config.amount_mib, memory_mib)?);
        let timer = TimerFd::new().map_err(timer_error)?;
        Ok(Self {
            config: config.clone(),
            memory_mib,
            space,
            statistics: BalloonStatistics::default(),
            timer,
            metrics: Arc::default(),
            replaced: Replaced::default(),
            retargeted: false,
            active: None,
        })
    }

    /// What this device counts.
    pub fn metrics(&self) -> Arc<BalloonMetrics> {
        self.metrics.clone()
    }

    /// The configuration as it is now: what GET `/balloon` answers.
    pub fn config(&self) -> &BalloonConfig {
        &self.config
    }

    /// Asks the guest to have `amount_mib` MiB in the balloon from now on. It gets there when it can.
    ///
    /// # Errors
    /// When the guest does not have that much.
    pub fn set_target(&mut self, amount_mib: u32) -> Result<(), BalloonError> {
        self.space.set_num_pages(config::pages(amount_mib, self.memory_mib)?);
        self.config.amount_mib = amount_mib;
        if let Some(active) = &self.active {
            active.interrupt.signal_config_change();
        }
        Ok(())
    }

    /// What the guest said last of its memory, and how large the balloon is.
    ///
    /// # Errors
    /// [`BalloonError::StatisticsOff`] when the polling interval is 0.
    pub fn statistics(&self) -> Result<BalloonStatistics, BalloonError> {
        if self.config.stats_polling_interval_s == 0 {
            return Err(BalloonError::StatisticsOff);
        }
        let mut statistics = self.statistics.clone();
        statistics.set_sizes(self.space.num_pages(), self.space.actual());
        Ok(statistics)
    }

    /// Asks the guest for statistics every `seconds` seconds from now on; 0: not any more.
    ///
    /// # Errors
    /// When the host refuses the timer.
    pub fn set_polling_interval(&mut self, seconds: u16) -> Result<(), BalloonError> {
        self.config.stats_polling_interval_s = seconds;
        self.arm_timer().map_err(BalloonError::Timer)
    }

    /// Starts the timer for the next statistics, or stops it. Either way it is not readable any more.
    fn arm_timer(&mut self) -> io::Result<()> {
        let seconds = self.config.stats_polling_interval_s;
        let wanted = self.active.as_ref().is_some_and(|active| active.negotiated(VIRTIO_BALLOON_F_STATS_VQ));
        let set = if seconds == 0 || !wanted {
            self.timer.clear()
        } else {
            self.timer.reset(Duration::from_secs(u64::from(seconds)), None)
        };
        set.map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    /// Pages came into the balloon.
    fn inflate(&mut self, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        let (mut list, mut pages) = (Vec::new(), Vec::new());
        queue.serve(MAX_PAGES_PER_CALL, |queue, mut chain| {
            self.metrics.inflations.increment();
            let ignored = read_pages(queue, &mut chain, &mut list, &mut pages);
            self.metrics.ignored_pages.add(ignored);
            let count = pages.len();
            self.metrics.inflated_pages.add(count as u64);
            let twice = ranges::merge(&mut pages);
            self.metrics.ignored_pages.add(twice / PAGE_SIZE);
            self.discard(queue, &pages);
            queue.add_used(chain.head, 0)?;
            Ok(count)
        })
    }

    /// Pages left the balloon. The guest finds zeroes in them; there is nothing to do.
    fn deflate(&self, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        queue.serve(MAX_DEFLATIONS_PER_CALL, |queue, chain| {
            self.metrics.deflations.increment();
            self.metrics.deflated_pages.add(chain.readable.len() / PAGE_NUMBER_LEN as u64);
            queue.add_used(chain.head, 0)?;
            Ok(1)
        })
    }

    /// The driver has free pages, and waits with them until it has its buffer back (5.5.6.5).
    fn take_reports(&mut self, queue: &mut VirtQueue, poisoned: bool) -> Result<(), DeviceError> {
        let mut reported = Vec::new();
        queue.serve(MAX_RANGES_PER_CALL, |queue, mut chain| {
            let front = chain.writable.take_front(MAX_REPORTED_BYTES_PER_CHAIN);
            let count = front.count().max((front.len() / BYTES_LIKE_A_RANGE) as usize);
            self.metrics.ignored_pages.add(chain.writable.len() / PAGE_SIZE);
            // A driver that wants to find a pattern in free pages would find zeroes.
            if !poisoned {
                reported.clear();
                reported.extend(front.iter().map(|segment| {
                    let start = segment.address.0;
                    start..start.saturating_add(u64::from(segment.len))
                }));
                self.metrics.reports.increment();
                let twice = ranges::merge(&mut reported);
                self.metrics.ignored_pages.add(twice / PAGE_SIZE);
                let bytes = self.discard(queue, &reported);
                self.metrics.reported_bytes.add(bytes);
            }
            queue.add_used(chain.head, 0)?;
            Ok(count)
        })
    }

    /// Gives `pages` back to the host, and says how many bytes it took.
    fn discard(&mut self, queue: &VirtQueue, pages: &[Range<u64>]) -> u64 {
        let mut bytes = 0;
        for range in pages {
            let discarded = discard::discard(queue.memory(), range, &mut self.replaced);
            bytes += discarded.bytes;
            self.metrics.ignored_pages.add(discarded.outside.div_ceil(PAGE_SIZE));
            if let Some(error) = discarded.refused {
                self.metrics.discard_failures.increment();
                debug!("balloon: pages at {:#x} stay with the guest: {error}", range.start);
            }
        }
        self.metrics.discarded_bytes.add(bytes);
        bytes
    }

    /// The driver has written statistics. It gets its buffer back when the next ones are wanted (5.5.6.3).
    fn take_statistics(&mut self, queue: &mut VirtQueue, head: &mut Option<u16>) -> Result<(), DeviceError> {
        queue.serve(MAX_STATISTICS_PER_CALL, |queue, mut chain| {
            let buffer = chain.readable.take_front(statistics::MAX_BUFFER_LEN);
            let mut bytes = vec![0; buffer.len() as usize];
            if buffer.read(queue.memory(), &mut bytes).is_ok() {
                self.metrics.statistics.increment();
                self.statistics.take(&bytes);
            }
            // Of a driver with two buffers the older one is of no use.
            if let Some(older) = head.replace(chain.head) {
                queue.add_used(older, 0)?;
            }
            Ok(1)
        })
    }

    fn process_queue(&mut self, active: &mut Active, index: u16) -> Result<(), DeviceError> {
        let statistics = active.negotiated(VIRTIO_BALLOON_F_STATS_VQ);
        let reporting = active.negotiated(VIRTIO_BALLOON_F_PAGE_REPORTING);
        let poisoned = active.negotiated(VIRTIO_BALLOON_F_PAGE_POISON) && self.space.poison_val() != 0;
        let Some(queue) = active.queues.get_mut(usize::from(index)) else { return Ok(()) };
        match index {
            INFLATE_QUEUE => self.inflate(queue),
            DEFLATE_QUEUE => self.deflate(queue),
            STATS_QUEUE if statistics => self.take_statistics(queue, &mut active.statistics_head),
            _ if reporting => self.take_reports(queue, poisoned),
            _ => Ok(()),
        }
    }
}

/// Bytes of a page number in a list.
const PAGE_NUMBER_LEN: usize = 4;

/// Reads the page numbers that a chain names into `pages`, by way of `list`; how many were ignored: those past the
/// limit, or all of them when the list is not in guest memory.
fn read_pages(queue: &VirtQueue, chain: &mut Chain, list: &mut Vec<u8>, pages: &mut Vec<Range<u64>>) -> u64 {
    let named = chain.readable.len() / PAGE_NUMBER_LEN as u64;
    let front = chain.readable.take_front((MAX_PAGES_PER_CHAIN * PAGE_NUMBER_LEN) as u64);
    pages.clear();
    list.resize(front.len() as usize, 0);
    if front.read(queue.memory(), list).is_err() {
        return named;
    }
    pages.extend(list.chunks_exact(PAGE_NUMBER_LEN).filter_map(|number| {
        let number = u64::from(u32::from_le_bytes(*number.first_chunk()?));
        Some(number * PAGE_SIZE..(number + 1) * PAGE_SIZE)
    }));
    named.saturating_sub(pages.len() as u64)
}

fn no_timer(source: io::Error) -> DeviceError {
    DeviceError::Backend { what: "cannot set the timer for statistics", source }
}

fn timer_error(error: vmm_sys_util::errno::Error) -> BalloonError {
    BalloonError::Timer(io::Error::from_raw_os_error(error.errno()))
}

impl VirtioDevice for BalloonDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        let mut features = 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_BALLOON_F_STATS_VQ;
        if self.config.deflate_on_oom {
            features |= 1 << VIRTIO_BALLOON_F_DEFLATE_ON_OOM;
        }
        if self.config.free_page_reporting {
            features |= 1 << VIRTIO_BALLOON_F_PAGE_REPORTING | 1 << VIRTIO_BALLOON_F_PAGE_POISON;
        }
        features
    }

    fn queue_max_sizes(&self) -> &[u16] {
        let count =
            if self.config.free_page_reporting { QUEUE_MAX_SIZES.len() } else { QUEUES_WITHOUT_REPORTING };
        QUEUE_MAX_SIZES.get(..count).unwrap_or_default()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.space.write(offset, data);
    }

    fn backend_fds(&self) -> Vec<BackendFd> {
        vec![BackendFd::level(TIMER_TOKEN, self.timer.as_raw_fd())]
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features } = activation;
        let queues = (0..).zip(queues);
        let queues = queues
            .map(|(index, queue)| VirtQueue::new(index, queue, memory.clone(), interrupt.clone()))
            .collect();
        if features & 1 << VIRTIO_BALLOON_F_STATS_VQ != 0 {
            // Linux notifies of its first buffer before it sets DRIVER_OK, when nobody listens, and never again.
            interrupt.continue_queue(STATS_QUEUE);
        }
        if std::mem::take(&mut self.retargeted) {
            interrupt.signal_config_change();
        }
        self.active = Some(Active { queues, interrupt, features, statistics_head: None });
        self.arm_timer().map_err(|source| {
            self.active = None;
            no_timer(source)
        })
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = match event {
            DeviceEvent::Queue(index) => self.process_queue(&mut active, index),
            DeviceEvent::Backend(_) => active.ask_for_statistics(),
        };
        self.active = Some(active);
        if let DeviceEvent::Backend(_) = event {
            self.arm_timer().map_err(no_timer)?;
        }
        result
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        let queues = self.active.take().map(|active| active.queues).unwrap_or_default();
        self.space.reset();
        self.statistics = BalloonStatistics::default();
        // What is not armed any more wakes nobody; a host that refuses leaves a timer that fires once.
        let _ = self.arm_timer();
        queues.into_iter().map(VirtQueue::into_inner).collect()
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        let Some(active) = &self.active else { return Vec::new() };
        let held = u16::from(active.statistics_head.is_some());
        let of =
            |(index, queue): (u16, &VirtQueue)| queue.position(if index == STATS_QUEUE { held } else { 0 });
        (0..).zip(&active.queues).map(of).collect()
    }

    fn save(&self) -> DeviceState {
        let space = &self.space;
        DeviceState::BalloonV1(BalloonStateV1 {
            num_pages: space.num_pages(),
            actual: space.actual(),
            poison_val: space.poison_val(),
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::BalloonV1(state) = state else { return Err(state.is_not("a balloon")) };
        let BalloonStateV1 { num_pages, actual, poison_val } = *state;
        self.space.restore(actual, poison_val);
        self.retargeted = self.space.num_pages() != num_pages;
        Ok(())
    }
}
