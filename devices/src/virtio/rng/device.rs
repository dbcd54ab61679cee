#![expect(unsafe_code, reason = "getrandom(2)")]

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use crate::metrics::RngMetrics;
use crate::virtio::device::{Activation, DeviceError, DeviceEvent, VirtioDevice};
use crate::virtio::queue::VirtQueue;
use crate::virtio::segments::Segments;

/// The one virtqueue, requestq.
const REQUEST_QUEUE: u16 = 0;
const QUEUE_MAX_SIZES: [u16; 1] = [64];

/// Random bytes that one request is given, however long its buffer is: a device may use a part of it (5.4.6.1). Linux
/// asks for 64 bytes or so; more would only hold up the event loop.
pub const MAX_BYTES_PER_REQUEST: u64 = 64 << 10;
/// Requests that one call of `process` serves before other devices get their turn.
const MAX_REQUESTS_PER_CALL: usize = 16;
/// Bytes that are fetched from the host at a time.
const BLOCK_LEN: usize = 4096;

/// An entropy device.
#[derive(Default)]
pub struct RngDevice {
    queue: Option<VirtQueue>,
    metrics: Arc<RngMetrics>,
}

impl RngDevice {
    /// A device that draws on the host's getrandom(2).
    pub fn new() -> Self {
        Self::default()
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

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features: _ } = activation;
        self.queue =
            queues.into_iter().next().map(|queue| VirtQueue::new(REQUEST_QUEUE, queue, memory, interrupt));
        Ok(())
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let (DeviceEvent::Queue(REQUEST_QUEUE), Some(queue)) = (event, &mut self.queue) else {
            return Ok(());
        };
        queue.disable_notifications()?;
        let mut served = 0;
        loop {
            while served < MAX_REQUESTS_PER_CALL {
                let Some(mut chain) = queue.pop()? else { break };
                let written = fill(queue, chain.writable.take_front(MAX_BYTES_PER_REQUEST));
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
        self.queue.take().map(VirtQueue::into_inner).into_iter().collect()
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
        if random(bytes).is_err() {
            break;
        }
        match part.write(queue.memory(), bytes) {
            Ok(count) => written += count as u32,
            Err(_) => break,
        }
    }
    written
}

/// Fills `bytes` with random ones.
fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: the kernel writes at most `rest.len()` bytes to `rest`, which is borrowed for the call.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        if let Ok(count) = usize::try_from(count) {
            filled += count;
            continue;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}
