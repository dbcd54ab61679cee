//! What device and registers share without a lock: device status, interrupt status, configuration generation,
//! eventfds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

use crate::interrupt::Interrupt;
use crate::metrics::TransportMetrics;
use crate::virtio::device::DeviceInterrupt;

/// A device's way to its driver over one interrupt line.
pub(super) struct Notifier {
    /// Device status (virtio 1.3, 2.1). Changed by the driver under the registers' lock; the device only sets
    /// DEVICE_NEEDS_RESET.
    pub(super) status: AtomicU32,
    /// Why the interrupt was raised (virtio 1.3, 4.2.2, InterruptStatus), until the driver acknowledges it.
    pub(super) interrupt_status: AtomicU32,
    pub(super) config_generation: AtomicU32,
    pub(super) queue_events: Vec<EventFd>,
    pub(super) metrics: Arc<TransportMetrics>,
    interrupt: Arc<dyn Interrupt>,
}

impl Notifier {
    pub(super) fn new(interrupt: Arc<dyn Interrupt>, queues: usize) -> io::Result<Self> {
        let queue_events = (0..queues)
            .map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            status: AtomicU32::new(0),
            interrupt_status: AtomicU32::new(0),
            config_generation: AtomicU32::new(0),
            queue_events,
            metrics: Arc::default(),
            interrupt,
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

    fn raise(&self, cause: u32) {
        // The cause comes before the interrupt, or the driver would find none.
        self.interrupt_status.fetch_or(cause, Ordering::SeqCst);
        match self.interrupt.trigger() {
            Ok(()) => self.metrics.interrupts.increment(),
            Err(_) => self.metrics.interrupt_failures.increment(),
        }
    }
}

impl DeviceInterrupt for Notifier {
    fn signal_queue(&self, _queue: u16) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn signal_config_change(&self) {
        self.config_generation.fetch_add(1, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn continue_queue(&self, queue: u16) {
        self.kick(u32::from(queue));
    }
}
