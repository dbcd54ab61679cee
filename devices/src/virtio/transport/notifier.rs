//! What device and registers share without a lock: device status, configuration generation, eventfds, and the way to
//! the driver.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use vmm_sys_util::eventfd::EventFd;

use crate::metrics::TransportMetrics;
use crate::virtio::device::DeviceInterrupt;

/// How a transport interrupts the driver: one line and a cause to read, or a message for each virtqueue.
pub trait Signal: Send + Sync {
    /// Interrupts for used buffers of virtqueue `queue` (virtio 1.3, 2.3).
    ///
    /// # Errors
    /// What the host said when the interrupt could not be handed over.
    fn signal_queue(&self, queue: u16) -> io::Result<()>;

    /// Interrupts for a change of the configuration.
    ///
    /// # Errors
    /// What the host said when the interrupt could not be handed over.
    fn signal_config_change(&self) -> io::Result<()>;

    /// Forgets what was signalled, as the driver resets the device.
    fn reset(&self);
}

/// A device's way to its driver.
pub(super) struct Notifier {
    /// Device status (virtio 1.3, 2.1). Changed by the driver under the registers' lock; the device only sets
    /// DEVICE_NEEDS_RESET.
    pub(super) status: AtomicU32,
    pub(super) config_generation: AtomicU32,
    pub(super) queue_events: Vec<EventFd>,
    pub(super) metrics: Arc<TransportMetrics>,
    pub(super) signal: Arc<dyn Signal>,
}

impl Notifier {
    pub(super) fn new(signal: Arc<dyn Signal>, queues: usize) -> io::Result<Self> {
        let queue_events = (0..queues)
            .map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            status: AtomicU32::new(0),
            config_generation: AtomicU32::new(0),
            queue_events,
            metrics: Arc::default(),
            signal,
        })
    }

    /// Wakes the device for virtqueue `queue`; one that does not exist wakes nobody.
    pub(super) fn kick(&self, queue: u32) {
        if let Some(event) = usize::try_from(queue).ok().and_then(|queue| self.queue_events.get(queue)) {
            // An eventfd refuses only when its counter is at the limit, and then it is readable.
            let _ = event.write(1);
        }
    }

    /// The device cannot go on: sets DEVICE_NEEDS_RESET and, if the driver is up, says so (virtio 1.3, 2.1.2).
    pub(super) fn set_needs_reset(&self) {
        self.status.fetch_or(VIRTIO_CONFIG_S_NEEDS_RESET, Ordering::SeqCst);
        self.metrics.needs_reset.increment();
        self.signal_config_change();
    }

    fn count(&self, raised: &io::Result<()>) {
        match raised {
            Ok(()) => self.metrics.interrupts.increment(),
            Err(_) => self.metrics.interrupt_failures.increment(),
        }
    }
}

impl DeviceInterrupt for Notifier {
    fn signal_queue(&self, queue: u16) {
        self.count(&self.signal.signal_queue(queue));
    }

    fn signal_config_change(&self) {
        self.config_generation.fetch_add(1, Ordering::SeqCst);
        self.count(&self.signal.signal_config_change());
    }

    fn queue_event(&self, queue: u16) -> Option<&EventFd> {
        self.queue_events.get(usize::from(queue))
    }

    fn continue_queue(&self, queue: u16) {
        self.kick(u32::from(queue));
    }
}
