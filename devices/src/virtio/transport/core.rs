//! The state behind every transport's registers: device status, features, queues, and the device itself.
//!
//! # Locks
//! `registers` comes before `device`. The event loop takes `device` only, so a register that needs no device
//! (notifications, queue set-up) never waits for I/O. What both sides touch without a lock is in
//! `Notifier`.
//!
//! # Rules
//! The device status follows virtio 1.3, 2.1 and 3.1.1 strictly: bits are set in order and never cleared but by a
//! reset, FEATURES_OK is refused for features that were not offered or without VIRTIO_F_VERSION_1, queues are set up
//! between FEATURES_OK and DRIVER_OK, and a write in the wrong state does nothing.

mod state;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use log::{debug, warn};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use vmm_sys_util::eventfd::EventFd;

use super::notifier::Notifier;
pub use super::notifier::Signal;
use super::queue_config::QueueConfig;
pub use super::queue_config::{Half, QueueArea};
use crate::metrics::TransportMetrics;
use crate::virtio::device::{Activation, BackendFd, DeviceError, DeviceEvent, SharedDevice, VirtioDevice};
use crate::{GuestMemory, lock};

/// Status after each step of virtio 1.3, 3.1.1. A driver may take several steps in one write, not skip one.
const STEPS: [u32; 5] = [
    0,
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_ACKNOWLEDGE
        | VIRTIO_CONFIG_S_DRIVER
        | VIRTIO_CONFIG_S_FEATURES_OK
        | VIRTIO_CONFIG_S_DRIVER_OK,
];
const STEP_BITS: u32 = STEPS[4];

/// Warnings that one device may log; what follows is for the debug level, so that a guest cannot fill a log.
const MAX_WARNINGS: u32 = 8;

/// Called with the device's type and what is wrong when the device fails, in the thread where it does.
pub type FailureListener = Box<dyn Fn(u32, &str) + Send + Sync>;

/// What the driver configures. Reset puts all of it back.
struct Registers {
    driver_features: u64,
    /// The driver acknowledged a feature past bit 63, which nobody offers.
    unknown_features: bool,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    queues: Vec<QueueConfig>,
}

impl Registers {
    fn new(queue_max_sizes: &[u16]) -> Self {
        Self {
            driver_features: 0,
            unknown_features: false,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            queues: queue_max_sizes.iter().copied().map(QueueConfig::new).collect(),
        }
    }

    fn selected(&self) -> Option<&QueueConfig> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut QueueConfig> {
        self.queues.get_mut(usize::try_from(self.queue_select).ok()?)
    }
}

/// A virtio device and the state of its registers, whichever transport decodes them.
pub struct TransportCore {
    registers: Mutex<Registers>,
    device: SharedDevice,
    /// The device is active. Changes under the lock of `device` only.
    active: AtomicBool,
    notifier: Arc<Notifier>,
    memory: GuestMemory,
    device_type: u32,
    device_features: u64,
    /// What a restored driver may have agreed on besides.
    former_features: u64,
    queue_max_sizes: Vec<u16>,
    backend_fds: Vec<BackendFd>,
    serves_queues: bool,
    warnings: AtomicU32,
    failure_listener: OnceLock<FailureListener>,
}

impl TransportCore {
    /// A device that was never touched. Its queues will lie in `memory`, and its driver hears of it by `signal`.
    ///
    /// # Errors
    /// When the host gives no eventfd for a queue.
    pub fn new(memory: GuestMemory, device: SharedDevice, signal: Arc<dyn Signal>) -> io::Result<Self> {
        let this = lock(&device);
        let queue_max_sizes = this.queue_max_sizes().to_vec();
        let (device_type, device_features, backend_fds) =
            (this.device_type(), this.features(), this.backend_fds());
        let (serves_queues, former_features) = (this.serves_queues(), this.former_features());
        drop(this);
        Ok(Self {
            registers: Mutex::new(Registers::new(&queue_max_sizes)),
            notifier: Arc::new(Notifier::new(signal, queue_max_sizes.len())?),
            memory,
            device_type,
            device_features,
            former_features,
            backend_fds,
            serves_queues,
            queue_max_sizes,
            device,
            active: AtomicBool::new(false),
            warnings: AtomicU32::new(0),
            failure_listener: OnceLock::new(),
        })
    }

    /// Device type number (virtio 1.3, section 5).
    pub fn device_type(&self) -> u32 {
        self.device_type
    }

    /// One eventfd per virtqueue, written when the driver notifies it. It is to be watched for edges: nothing empties it.
    pub fn queue_events(&self) -> &[EventFd] {
        &self.notifier.queue_events
    }

    /// Those of [`queue_events`](Self::queue_events) that are for [`process`](Self::process).
    pub fn watched_queue_events(&self) -> &[EventFd] {
        if self.serves_queues { self.queue_events() } else { &[] }
    }

    /// Descriptors of the device's backend.
    pub fn backend_fds(&self) -> &[BackendFd] {
        &self.backend_fds
    }

    /// What this transport counts.
    pub fn metrics(&self) -> Arc<TransportMetrics> {
        self.notifier.metrics.clone()
    }

    /// The half of the offered features that the driver selected; past bit 63 none are offered.
    pub fn device_features(&self) -> u32 {
        match lock(&self.registers).device_features_select {
            0 => self.device_features as u32,
            1 => (self.device_features >> 32) as u32,
            _ => 0,
        }
    }

    /// Which half [`device_features`](Self::device_features) reads.
    pub fn device_features_select(&self) -> u32 {
        lock(&self.registers).device_features_select
    }

    /// Selects the half that [`device_features`](Self::device_features) reads.
    pub fn select_device_features(&self, select: u32) {
        lock(&self.registers).device_features_select = select;
    }

    /// Which half [`set_driver_features`](Self::set_driver_features) writes.
    pub fn driver_features_select(&self) -> u32 {
        lock(&self.registers).driver_features_select
    }

    /// The half of the acknowledged features that the driver selected.
    pub fn driver_features(&self) -> u32 {
        let registers = lock(&self.registers);
        match registers.driver_features_select {
            0 => registers.driver_features as u32,
            1 => (registers.driver_features >> 32) as u32,
            _ => 0,
        }
    }

    /// Selects the half that [`set_driver_features`](Self::set_driver_features) writes.
    pub fn select_driver_features(&self, select: u32) {
        lock(&self.registers).driver_features_select = select;
    }

    /// Acknowledges features, between DRIVER and FEATURES_OK.
    pub fn set_driver_features(&self, features: u32) {
        let mut registers = lock(&self.registers);
        if self.status() != STEPS[2] {
            return;
        }
        let half = match registers.driver_features_select {
            0 => Half::Low,
            1 => Half::High,
            _ => {
                registers.unknown_features |= features != 0;
                return;
            }
        };
        registers.driver_features = half.replace(registers.driver_features, features);
    }

    /// Number of virtqueues.
    pub fn queue_count(&self) -> usize {
        self.queue_max_sizes.len()
    }

    /// The virtqueue that the queue registers mean.
    pub fn queue_select(&self) -> u32 {
        lock(&self.registers).queue_select
    }

    /// Selects the virtqueue that the queue registers mean.
    pub fn select_queue(&self, queue: u32) {
        lock(&self.registers).queue_select = queue;
    }

    /// Largest size of the selected virtqueue; 0 when there is no such queue.
    pub fn queue_max_size(&self) -> u32 {
        lock(&self.registers).selected().map_or(0, |queue| u32::from(queue.max_size()))
    }

    /// Number of descriptors of the selected virtqueue: its largest until the driver sets it; 0 when there is no such
    /// queue.
    pub fn queue_size(&self) -> u32 {
        lock(&self.registers).selected().map_or(0, QueueConfig::size)
    }

    /// Address of a part of the selected virtqueue, as the driver set it.
    pub fn queue_address(&self, area: QueueArea) -> u64 {
        lock(&self.registers).selected().map_or(0, |queue| queue.address(area))
    }

    /// Whether the selected virtqueue is ready.
    pub fn queue_ready(&self) -> bool {
        lock(&self.registers).selected().is_some_and(QueueConfig::ready)
    }

    /// Sets the number of descriptors of the selected virtqueue.
    pub fn set_queue_size(&self, size: u32) {
        self.configure_queue(|queue| queue.set_size(size));
    }

    /// Makes the selected virtqueue ready, unless its size is not valid, or not ready.
    pub fn set_queue_ready(&self, ready: bool) {
        self.configure_queue(|queue| queue.set_ready(ready));
    }

    /// Sets half of an address of the selected virtqueue.
    pub fn set_queue_address(&self, area: QueueArea, half: Half, value: u32) {
        self.configure_queue(|queue| queue.set_address(area, half, value));
    }

    fn configure_queue(&self, configure: impl FnOnce(&mut QueueConfig)) {
        let mut registers = lock(&self.registers);
        if self.status() == STEPS[3]
            && let Some(queue) = registers.selected_mut()
        {
            configure(queue);
        }
    }

    /// The driver made buffers available in virtqueue `queue`.
    pub fn notify_queue(&self, queue: u32) {
        self.notifier.kick(queue);
    }

    /// Changes whenever the device's configuration space does.
    pub fn config_generation(&self) -> u32 {
        self.notifier.config_generation.load(Ordering::SeqCst)
    }

    /// Reads the device's configuration space.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        lock(&self.device).read_config(offset, data);
    }

    /// Writes the device's configuration space, once a driver is there.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        let driver_present = VIRTIO_CONFIG_S_DRIVER;
        if self.status() & (driver_present | VIRTIO_CONFIG_S_FAILED) == driver_present {
            lock(&self.device).write_config(offset, data);
        }
    }

    /// Device status (virtio 1.3, 2.1).
    pub fn status(&self) -> u32 {
        self.notifier.status.load(Ordering::SeqCst)
    }

    /// The driver takes steps of its initialization, gives up, or resets the device.
    pub fn set_status(&self, value: u32) {
        let mut registers = lock(&self.registers);
        let current = self.status();
        if value == 0 {
            self.reset(&mut registers);
            return;
        }
        if current & (VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET) != 0 {
            self.notifier.status.fetch_or(value & VIRTIO_CONFIG_S_FAILED, Ordering::SeqCst);
            return;
        }
        let (old, new) = (current & STEP_BITS, value & STEP_BITS);
        if new & old != old || !STEPS.contains(&new) {
            debug!("virtio device {}: status {value:#x} after {current:#x} ignored", self.device_type);
            return;
        }
        for step in STEPS.into_iter().filter(|step| *step > old && *step <= new) {
            if step == STEPS[3] && !self.features_acceptable(&registers) {
                break;
            }
            self.notifier.status.fetch_or(step, Ordering::SeqCst);
            if step == STEPS[4] {
                self.activate(&registers);
            }
        }
        self.notifier.status.fetch_or(value & VIRTIO_CONFIG_S_FAILED, Ordering::SeqCst);
    }

    fn features_acceptable(&self, registers: &Registers) -> bool {
        let features = registers.driver_features;
        let acceptable = !registers.unknown_features
            && features & !self.device_features == 0
            && features & 1 << VIRTIO_F_VERSION_1 != 0
            && lock(&self.device).accepts(features);
        if !acceptable {
            debug!("virtio device {}: features {features:#x} refused", self.device_type);
        }
        acceptable
    }

    fn activate(&self, registers: &Registers) {
        let mut device = lock(&self.device);
        let queues = (0..).zip(&registers.queues).map(|(index, queue)| {
            let built = queue.build(&self.memory, registers.driver_features);
            built.map_err(|message| DeviceError::Queue { queue: index, message })
        });
        let activated = queues.collect::<Result<_, _>>().and_then(|queues| {
            device.activate(Activation {
                memory: self.memory.clone(),
                interrupt: self.notifier.clone(),
                queues,
                features: registers.driver_features,
            })
        });
        match activated {
            Ok(()) => {
                self.active.store(true, Ordering::SeqCst);
                self.notifier.metrics.activations.increment();
            }
            Err(error) => self.fail(&error),
        }
    }

    fn reset(&self, registers: &mut Registers) {
        let mut device = lock(&self.device);
        if self.active.swap(false, Ordering::SeqCst) {
            device.deactivate();
        }
        // With the device's lock held: nothing sets DEVICE_NEEDS_RESET or a cause of interrupts after this.
        *registers = Registers::new(&self.queue_max_sizes);
        let Notifier { status, config_generation: _, queue_events, metrics, signal } = &*self.notifier;
        status.store(0, Ordering::SeqCst);
        signal.reset();
        for event in queue_events {
            // Nothing to read means that nobody kicked.
            let _ = event.read();
        }
        metrics.resets.increment();
    }

    /// Has the device do what `event` asks for. The event loop calls this when one of
    /// [`watched_queue_events`](Self::watched_queue_events) was written or one of [`backend_fds`](Self::backend_fds) is readable.
    pub fn process(&self, event: DeviceEvent) {
        let mut device = lock(&self.device);
        if !self.active.load(Ordering::SeqCst) {
            if let DeviceEvent::Backend(token) = event {
                device.ignore(token);
            }
            return;
        }
        self.notifier.metrics.events.increment();
        if let Err(error) = device.process(event) {
            self.give_up(&mut *device, &error);
        }
    }

    /// The device, which was active, cannot go on.
    fn give_up(&self, device: &mut dyn VirtioDevice, error: &DeviceError) {
        // Quiet until it is reset: nothing completes behind the driver's back, no backend descriptor stays readable.
        self.active.store(false, Ordering::SeqCst);
        device.deactivate();
        self.fail(error);
    }

    /// Has `listener` called with the device's type and what is wrong when the device fails. Only the first one is.
    pub fn on_failure(&self, listener: FailureListener) {
        let _ = self.failure_listener.set(listener);
    }

    fn fail(&self, error: &DeviceError) {
        let device_type = self.device_type;
        let message = error.in_full();
        if self.warnings.fetch_add(1, Ordering::Relaxed) < MAX_WARNINGS {
            warn!("virtio device {device_type} needs a reset by its driver: {message}");
        } else {
            debug!("virtio device {device_type} needs a reset by its driver: {message}");
        }
        if let Some(listener) = self.failure_listener.get() {
            listener(device_type, &message);
        }
        self.notifier.set_needs_reset();
    }
}
