//! A device that tests of the transports stand behind, which notes what it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use virtio_queue::{Queue, QueueT};

use crate::state::StateError;
use crate::virtio::device::{
    Activation, DeviceError, DeviceEvent, DeviceInterrupt, QueuePosition, VirtioDevice,
};
use crate::virtio::queue_harness::VERSION_1;
use crate::virtio::rng::RngStateV1;
use crate::virtio::state::DeviceState;

pub(super) const EVENT_IDX: u64 = 1 << 29;

/// What the device saw, for the test that holds the other end.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) activations: AtomicUsize,
    pub(super) deactivations: AtomicUsize,
    pub(super) processed: Mutex<Vec<DeviceEvent>>,
    pub(super) queues: Mutex<Vec<(bool, u16, bool)>>,
    pub(super) config_writes: AtomicUsize,
    pub(super) interrupt: Mutex<Option<Arc<dyn DeviceInterrupt>>>,
}

/// A device with four bytes of configuration, and an error whenever queue 1 is notified.
pub(super) struct TestDevice {
    kind: u32,
    queues: &'static [u16],
    seen: Arc<Seen>,
}

impl TestDevice {
    /// One of the type `kind`, with queues of these sizes at most.
    pub(super) fn new(kind: u32, queues: &'static [u16]) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        (Self { kind, queues, seen: seen.clone() }, seen)
    }
}

impl VirtioDevice for TestDevice {
    fn device_type(&self) -> u32 {
        self.kind
    }
    fn features(&self) -> u64 {
        VERSION_1 | EVENT_IDX | 1
    }
    fn queue_max_sizes(&self) -> &[u16] {
        self.queues
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (byte, offset) in data.iter_mut().zip(offset..) {
            *byte = if offset < 4 { 0xa0 + offset as u8 } else { 0 };
        }
    }
    fn write_config(&mut self, _: u64, _: &[u8]) {
        self.seen.config_writes.fetch_add(1, Ordering::SeqCst);
    }
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        self.seen.activations.fetch_add(1, Ordering::SeqCst);
        *self.seen.queues.lock().unwrap() = activation
            .queues
            .iter()
            .map(|queue| (queue.ready(), queue.size(), queue.event_idx_enabled()))
            .collect();
        *self.seen.interrupt.lock().unwrap() = Some(activation.interrupt);
        Ok(())
    }
    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        self.seen.processed.lock().unwrap().push(event);
        match event {
            DeviceEvent::Queue(1) => Err(DeviceError::Queue { queue: 1, message: "broken".into() }),
            _ => Ok(()),
        }
    }
    fn deactivate(&mut self) -> Vec<Queue> {
        self.seen.deactivations.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    }
    fn drain(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
    fn queue_positions(&self) -> Vec<QueuePosition> {
        Vec::new()
    }
    fn save(&self) -> DeviceState {
        DeviceState::RngV1(RngStateV1 {})
    }
    fn restore(&mut self, _: &DeviceState) -> Result<(), StateError> {
        Ok(())
    }
}
