use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use super::config::EntropyConfig;
use super::state::RngStateV1;
use crate::metrics::RngMetrics;
use crate::random;
use crate::rate_limiter::{RateLimiter, RateLimiterConfig};
use crate::state::StateError;
use crate::virtio::device::{Activation, BackendFd, DeviceError, DeviceEvent, QueuePosition, VirtioDevice};
use crate::virtio::queue::VirtQueue;
use crate::virtio::segments::Segments;
use crate::virtio::state::DeviceState;

/// The one virtqueue, requestq.
const REQUEST_QUEUE: u16 = 0;
const QUEUE_MAX_SIZES: [u16; 1] = [64];
/// Token of the rate limiter's descriptor.
const LIMITER_TOKEN: u32 = 0;

/// Random bytes that one request is given, however long its buffer is: a device may use a part of it (5.4.6.1). Linux
/// asks for 64 bytes or so; more would only hold up the event loop.
pub const MAX_BYTES_PER_REQUEST: u64 = 64 << 10;
/// Requests that one call of `process` serves before other devices get their turn.
const MAX_REQUESTS_PER_CALL: usize = 16;
/// Bytes that are fetched from the host at a time.
const BLOCK_LEN: usize = 4096;

/// An entropy device.
pub struct RngDevice {
    queue: Option<VirtQueue>,
    limiter: RateLimiter,
    metrics: Arc<RngMetrics>,
}

impl RngDevice {
    /// A device that draws on the host's getrandom(2).
    ///
    /// # Errors
    /// When the host has no descriptor left for the rate limiter's timer.
    pub fn new(config: &EntropyConfig) -> io::Result<Self> {
        let no_limits = RateLimiterConfig::default();
        let limiter = RateLimiter::new(config.rate_limiter.as_ref().unwrap_or(&no_limits))?;
        Ok(Self { queue: None, limiter, metrics: Arc::default() })
    }

    /// What this device counts.
    pub fn metrics(&self) -> Arc<RngMetrics> {
        self.metrics.clone()
    }
}

impl VirtioDevice for RngDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    /// There is no configuration space (5.4.4).
    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn backend_fds(&self) -> Vec<BackendFd> {
        vec![BackendFd::level(LIMITER_TOKEN, self.limiter.fd())]
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features: _ } = activation;
        self.queue =
            queues.into_iter().next().map(|queue| VirtQueue::new(REQUEST_QUEUE, queue, memory, interrupt));
        Ok(())
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        match event {
            DeviceEvent::Queue(REQUEST_QUEUE) => {}
            DeviceEvent::Backend(LIMITER_TOKEN) => self.limiter.wake(),
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => return Ok(()),
        }
        if self.limiter.is_blocked() {
            // Notifications are off, and the limiter's descriptor tells when to look again.
            return Ok(());
        }
        queue.disable_notifications()?;
        let mut served = 0;
        loop {
            while served < MAX_REQUESTS_PER_CALL {
                let Some(mut chain) = queue.pop()? else { break };
                let buffer = chain.writable.take_front(MAX_BYTES_PER_REQUEST);
                if !self.limiter.take(buffer.len()) {
                    queue.unpop(1);
                    self.metrics.limited.increment();
                    return queue.notify_driver();
                }
                let written = fill(queue, buffer);
                match written {
                    0 => self.metrics.errors.increment(),
                    _ => self.metrics.requests.increment(),
                }
                self.metrics.bytes.add(u64::from(written));
                queue.add_used(chain.head, written)?;
                served += 1;
            }
            if served >= MAX_REQUESTS_PER_CALL {
                queue.continue_later();
                break;
            }
            if !queue.enable_notifications()? {
                break;
            }
            // Counts as a request: a driver may move the index to and fro.
            served += 1;
        }
        queue.notify_driver()
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.limiter.disarm();
        self.queue.take().map(VirtQueue::into_inner).into_iter().collect()
    }

    /// Nothing is ever in flight.
    fn drain(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        self.queue.iter().map(|queue| queue.position(0)).collect()
    }

    fn save(&self) -> DeviceState {
        // The queue is saved elsewhere, the others are the configuration's.
        let Self { queue: _, limiter: _, metrics: _ } = self;
        DeviceState::RngV1(RngStateV1 {})
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::RngV1(RngStateV1 {}) = state else { return Err(state.is_not("an entropy device")) };
        Ok(())
    }
}

/// Fills the front of `buffer` and says how many bytes that were: all, but where memory or the host's randomness
/// ends.
fn fill(queue: &VirtQueue, mut buffer: Segments) -> u32 {
    let mut block = [0; BLOCK_LEN];
    let mut written = 0;
    while !buffer.is_empty() {
        let part = buffer.take_front(BLOCK_LEN as u64);
        let Some(bytes) = block.get_mut(..part.len() as usize) else { break };
        if random::fill(bytes).is_err() {
            break;
        }
        match part.write(queue.memory(), bytes) {
            Ok(count) => written += count as u32,
            Err(_) => break,
        }
    }
    written
}
