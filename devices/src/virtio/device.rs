//! What every virtio device is, whichever transport shows it to the guest.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::state::DeviceState;
use crate::GuestMemory;
use crate::state::StateError;

/// What woke a device up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The driver notified this virtqueue.
    Queue(u16),
    /// The host side is ready: the descriptor that [`VirtioDevice::backend_fds`] gave with this token is readable.
    Backend(u32),
}

/// How a device tells the driver that it used buffers or changed its configuration. The transport implements it.
pub trait DeviceInterrupt: Send + Sync {
    /// Used-buffer notification of virtqueue `queue` (virtio 1.3, 2.3).
    fn signal_queue(&self, queue: u16);
    /// Configuration-change notification.
    fn signal_config_change(&self);
    /// The eventfd that is written when the driver notifies virtqueue `queue`, for a device whose
    /// [queues are served](VirtioDevice::serves_queues) elsewhere.
    fn queue_event(&self, queue: u16) -> Option<&EventFd>;
    /// Not for the driver: has the device's own [`VirtioDevice::process`] called again for virtqueue `queue`, for
    /// what is left in it when a call has done its share.
    fn continue_queue(&self, queue: u16);
}

/// What a device gets when the driver sets DRIVER_OK.
pub struct Activation {
    /// Guest memory that the queues and their buffers live in.
    pub memory: GuestMemory,
    /// How to notify the driver.
    pub interrupt: Arc<dyn DeviceInterrupt>,
    /// The virtqueues as the driver set them up, in order; one that the driver left disabled is not ready.
    pub queues: Vec<Queue>,
    /// The features that both sides agreed on.
    pub features: u64,
}

/// A device cannot go on: the transport sets DEVICE_NEEDS_RESET (virtio 1.3, 2.1.2). It never ends the VMM.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver broke the rules of a virtqueue.
    #[error("virtqueue {queue}: {message}")]
    Queue {
        /// Index of the virtqueue.
        queue: u16,
        /// What is wrong.
        message: String,
    },
    /// The host side failed in a way that no request can report.
    #[error("{what}")]
    Backend {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}

impl DeviceError {
    /// What is wrong, and what the host said.
    pub(crate) fn in_full(&self) -> String {
        let source = std::error::Error::source(self).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{self}{source}")
    }
}

/// How far a device is in the rings of a virtqueue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePosition {
    /// Index of the available ring: chains before it were taken, and given back.
    pub next_avail: u16,
    /// Index of the used ring: where the next chain is given back.
    pub next_used: u16,
}

/// A descriptor that the event loop watches for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendFd {
    /// What [`VirtioDevice::process`] gets, as [`DeviceEvent::Backend`].
    pub token: u32,
    /// The descriptor.
    pub fd: RawFd,
    /// When it wakes the device.
    pub trigger: Trigger,
}

/// When a descriptor wakes its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// As long as it is readable: for one that `process` always empties, such as an eventfd.
    Level,
    /// When it becomes readable or writable: for one that stays readable while the driver has no buffers, such as a tap.
    Edge,
}

impl BackendFd {
    /// One that wakes the device as long as it is readable.
    pub fn level(token: u32, fd: RawFd) -> Self {
        Self { token, fd, trigger: Trigger::Level }
    }

    /// One that wakes the device whenever it becomes readable or writable.
    pub fn edge(token: u32, fd: RawFd) -> Self {
        Self { token, fd, trigger: Trigger::Edge }
    }
}

/// A device that its transport, and whoever changes it while the guest runs, hold together.
pub type SharedDevice = Arc<Mutex<dyn VirtioDevice>>;

/// One virtio device.
///
/// Order of calls: `activate` (driver set DRIVER_OK), any number of `process`, `deactivate` (driver reset the device, or
/// `process` failed), then perhaps `activate` again. `process` outside of that is not called.
///
/// To be saved, while no vCPU runs: `drain`, `queue_positions` (both of an active device only) and `save`, and `go_on` before
/// the guest does. To be restored: `restore` before anything else, then `activate` if it was active, with queues that are
/// as far as `queue_positions` said. The driver is interrupted and each queue kicked after that, not before: an interrupt that
/// is raised while a device is restored is lost.
pub trait VirtioDevice: Send {
    /// Device type number (virtio 1.3, section 5).
    fn device_type(&self) -> u32;

    /// Feature bits that the device offers, `VIRTIO_F_VERSION_1` among them.
    fn features(&self) -> u64;

    /// Feature bits that earlier versions offered: the driver of a restored guest may have agreed on them.
    fn former_features(&self) -> u64 {
        0
    }

    /// Whether the driver may set FEATURES_OK with `features`, all of which are offered: a feature that needs another one must
    /// come with it (virtio 1.3, 2.2.1).
    fn accepts(&self, _features: u64) -> bool {
        true
    }

    /// Largest size of each virtqueue, in descriptors; its length is the number of virtqueues.
    fn queue_max_sizes(&self) -> &[u16];

    /// Fills `data` from the configuration space at `offset`; what lies past its end reads as zeros.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Takes a write to the configuration space. Most devices have nothing that can be written.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Descriptors that the event loop watches for this device. They stay the same from first to last; what they
    /// say while the device is not active is lost. A device whose descriptors come and go gives an epoll of its own.
    fn backend_fds(&self) -> Vec<BackendFd> {
        Vec::new()
    }

    /// Whether the driver's notifications are for [`process`](Self::process). Otherwise something else waits for them.
    fn serves_queues(&self) -> bool {
        true
    }

    /// The driver is ready. Rings, threads and sockets are made here, not before.
    ///
    /// # Errors
    /// When the device cannot start; it is then as if it had never been asked to.
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError>;

    /// The descriptor with this token says something while the device is not active, which is lost. One that would wake the
    /// event loop again and again is emptied here.
    fn ignore(&mut self, _token: u32) {}

    /// Does what the event asks for, a bounded amount at a time.
    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError>;

    /// Finishes or drops what is in flight and gives the queues back.
    fn deactivate(&mut self) -> Vec<Queue>;

    /// Finishes what is in flight on the host, so that guest memory and [`queue_positions`](Self::queue_positions) say all
    /// there is. The device stays active, and touches no memory until it is called again; then it goes on as if nothing had
    /// happened.
    ///
    /// # Errors
    /// As for [`process`](Self::process).
    fn drain(&mut self) -> Result<(), DeviceError>;

    /// The guest goes on after [`drain`](Self::drain): a device whose queues something else serves has it start again.
    ///
    /// # Errors
    /// As for [`process`](Self::process).
    fn go_on(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// How far the device is in each of its queues. A chain that it took and still holds counts as not taken, so that a
    /// restored device takes it again; such chains must be the last ones that it took.
    fn queue_positions(&self) -> Vec<QueuePosition>;

    /// What a snapshot keeps of the device but for its queues.
    fn save(&self) -> DeviceState;

    /// Takes over the state of a saved device.
    ///
    /// # Errors
    /// When the state is of another kind of device, cannot be, or does not go with what this device was made from. It
    /// is then not to be activated.
    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError>;
}
