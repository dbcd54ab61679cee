use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use super::config::{VsockConfig, VsockConfigError};
use super::muxer::{Muxer, Turn};
use super::rx_queue::RxQueue;
use super::state::VsockStateV1;
use crate::metrics::VsockMetrics;
use crate::state::StateError;
use crate::unix_socket::{Descriptors, ListeningSocket, SocketError};
use crate::virtio::device::{Activation, BackendFd, DeviceError, DeviceEvent, QueuePosition, VirtioDevice};
use crate::virtio::queue::VirtQueue;
use crate::virtio::state::DeviceState;

/// Packets to the guest.
const RX_QUEUE: u16 = 0;
/// Packets from the guest.
const TX_QUEUE: u16 = 1;
/// Events for the guest's driver.
const EVENT_QUEUE: u16 = 2;
const QUEUE_MAX_SIZES: [u16; 3] = [256, 256, 16];
/// Token of the one descriptor, which stands for all sockets.
const SOCKETS_TOKEN: u32 = 0;

/// VIRTIO_VSOCK_F_STREAM: stream sockets.
const VIRTIO_VSOCK_F_STREAM: u64 = 0;
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: all connections are gone.
const VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: u32 = 0;

/// Why there is no socket device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] VsockConfigError),
    /// There is no socket for host programs.
    #[error("vsock: cannot listen at {}", path.display())]
    Listener {
        /// Its path.
        path: PathBuf,
        /// What is in the way.
        #[source]
        source: SocketError,
    },
    /// The host has no descriptor left.
    #[error("vsock: cannot watch sockets")]
    Watch(#[source] io::Error),
}

/// How long a restored guest may take to hear of the end of its connections, before it is sent packets all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What exists from DRIVER_OK to the next reset.
struct Active {
    rx: RxQueue,
    tx: VirtQueue,
    events: VirtQueue,
    /// Packets of the guest wait for it to take its RSTs.
    blocked: bool,
    /// The guest was restored and may not know yet that its connections are gone.
    settling: Option<Settling>,
}

/// No packet goes either way until the guest has taken the event that ends its connections. A RST that it took before
/// would be the end of a stream to it and no error, and its context id may be a new one that it has yet to read.
struct Settling {
    /// How many buffers for events it had made available. Linux gives the buffer back when it has done what the event says.
    available: u16,
    /// When it has had time enough, since it first notified: until then it may be paused.
    until: Option<Instant>,
}

impl Settling {
    /// Whether the guest is to be waited for no longer, after `event`.
    fn is_over(&mut self, event: DeviceEvent, events: &mut VirtQueue) -> bool {
        if matches!(event, DeviceEvent::Queue(_)) {
            self.until.get_or_insert_with(|| Instant::now() + SETTLE_TIMEOUT);
        }
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        late || events.available().ok() != Some(self.available)
    }
}

/// A socket device: streams between programs in the guest and on the host.
pub struct VsockDevice {
    guest_cid: u64,
    muxer: Muxer,
    metrics: Arc<VsockMetrics>,
    /// The state of the device that this one goes on for, until the driver is there.
    restored: Option<VsockStateV1>,
    active: Option<Active>,
}

impl VsockDevice {
    /// A device with the socket that `config` names. Host programs can connect from now on, and wait for the guest.
    ///
    /// # Errors
    /// [`VsockError`] when the configuration is wrong, the path is taken, or the host refuses.
    pub fn new(config: &VsockConfig) -> Result<Self, VsockError> {
        crate::descriptors::raise_limit();
        config.validate()?;
        let metrics = Arc::<VsockMetrics>::default();
        let path = &config.uds_path;
        let listener = ListeningSocket::bind(path, Descriptors::Refuse)
            .map_err(|source| VsockError::Listener { path: path.clone(), source })?;
        let muxer = Muxer::new(config, listener, metrics.clone()).map_err(VsockError::Watch)?;
        Ok(Self { guest_cid: config.guest_cid, muxer, metrics, restored: None, active: None })
    }

    /// What this device counts.
    pub fn metrics(&self) -> Arc<VsockMetrics> {
        self.metrics.clone()
    }

    fn serve(&mut self, active: &mut Active, event: DeviceEvent) -> Result<(), DeviceError> {
        let mut take = false;
        match event {
            DeviceEvent::Queue(RX_QUEUE) => active.rx.notified()?,
            DeviceEvent::Queue(TX_QUEUE) => take = true,
            DeviceEvent::Backend(SOCKETS_TOKEN) => {
                let failed = |source| DeviceError::Backend { what: "cannot wait for sockets", source };
                self.muxer.poll().map_err(failed)?;
            }
            DeviceEvent::Queue(EVENT_QUEUE) if active.settling.is_some() => {}
            // The driver gives buffers for events, which wait for one.
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => return Ok(()),
        }
        if let Some(settling) = &mut active.settling {
            if !settling.is_over(event, &mut active.events) {
                self.muxer.tick_later();
                return Ok(());
            }
            active.settling = None;
            take = true;
        }
        if take {
            active.blocked = self.muxer.take_from_guest(&mut active.tx)? == Turn::Blocked;
        }
        self.muxer.send_to_guest(&mut active.rx)?;
        if active.blocked && self.muxer.can_take_packets() {
            active.blocked = false;
            active.tx.continue_later();
        }
        Ok(())
    }
}

/// Tells a guest that the transport was reset (virtio 1.3, 5.10.6.7): it ends its connections, which are gone, and reads its
/// context id anew. None without a buffer of the driver for that.
fn announce_reset(events: &mut VirtQueue) -> Result<Option<Settling>, DeviceError> {
    let Some(chain) = events.pop()? else { return Ok(None) };
    let settling = Settling { available: events.await_addition()?, until: None };
    let event = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET.to_le_bytes();
    let written = chain.writable.write(events.memory(), &event).unwrap_or_default();
    events.add_used(chain.head, written as u32)?;
    events.notify_driver()?;
    Ok((written == event.len()).then_some(settling))
}

impl VirtioDevice for VsockDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_VSOCK_F_STREAM
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    /// The guest's context id, 8 bytes (5.10.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.guest_cid.to_le_bytes();
        let bytes = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
        data.fill(0);
        for (place, byte) in data.iter_mut().zip(bytes) {
            *place = *byte;
        }
    }

    fn backend_fds(&self) -> Vec<BackendFd> {
        vec![BackendFd::level(SOCKETS_TOKEN, self.muxer.fd())]
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features: _ } = activation;
        let mut queues = (0..)
            .zip(queues)
            .map(|(index, queue)| VirtQueue::new(index, queue, memory.clone(), interrupt.clone()));
        let (Some(rx), Some(tx), Some(events)) = (queues.next(), queues.next(), queues.next()) else {
            return Ok(());
        };
        self.muxer
            .start()
            .map_err(|source| DeviceError::Backend { what: "cannot wait for host programs", source })?;
        let mut active = Active { rx: RxQueue::new(rx), tx, events, blocked: false, settling: None };
        if let Some(state) = self.restored.take().filter(|state| state.active) {
            // A guest that broke this ring was not found out: nobody looked.
            active.settling = announce_reset(&mut active.events).unwrap_or_default();
            if active.settling.is_none() {
                self.muxer.reset_each(&state.connections);
            }
        }
        self.active = Some(active);
        Ok(())
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = self.serve(&mut active, event);
        self.active = Some(active);
        result
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        let Some(Active { rx, mut tx, events, blocked: _, settling: _ }) = self.active.take() else {
            return Vec::new();
        };
        // A guest's last words, if its host program takes them. A ring that the driver broke has none.
        let _ = self.muxer.take_from_guest(&mut tx);
        self.muxer.stop();
        vec![rx.into_inner(), tx.into_inner(), events.into_inner()]
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        let Some(Active { rx, tx, events, .. }) = &self.active else { return Vec::new() };
        vec![rx.position(), tx.position(0), events.position(0)]
    }

    fn save(&self) -> DeviceState {
        DeviceState::VsockV1(self.muxer.save(self.active.is_some()))
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::VsockV1(state) = state else { return Err(state.is_not("a socket device")) };
        self.muxer.restore(state)?;
        self.restored = Some(state.clone());
        Ok(())
    }
}

const _: () = assert!(EVENT_QUEUE as usize + 1 == QUEUE_MAX_SIZES.len());
