use std::io;
use std::path::PathBuf;
use std::sync::Arc;

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
use crate::unix_socket::{ListeningSocket, SocketError};
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

/// What exists from DRIVER_OK to the next reset.
struct Active {
    rx: RxQueue,
    tx: VirtQueue,
    events: VirtQueue,
    /// Packets of the guest wait for it to take its RSTs.
    blocked: bool,
}

/// A socket device: streams between programs in the guest and on the host.
pub struct VsockDevice {
    guest_cid: u64,
    muxer: Muxer,
    metrics: Arc<VsockMetrics>,
    active: Option<Active>,
}

impl VsockDevice {
    /// A device with the socket that `config` names. Host programs can connect from now on, and wait for the guest.
    ///
    /// # Errors
    /// [`VsockError`] when the configuration is wrong, the path is taken, or the host refuses.
    pub fn new(config: &VsockConfig) -> Result<Self, VsockError> {
        config.validate()?;
        let metrics = Arc::<VsockMetrics>::default();
        let path = &config.uds_path;
        let listener = ListeningSocket::bind(path)
            .map_err(|source| VsockError::Listener { path: path.clone(), source })?;
        let muxer = Muxer::new(config, listener, metrics.clone()).map_err(VsockError::Watch)?;
        Ok(Self { guest_cid: config.guest_cid, muxer, metrics, active: None })
    }

    /// What this device counts.
    pub fn metrics(&self) -> Arc<VsockMetrics> {
        self.metrics.clone()
    }

    /// Ends all connections and tells the guest so (virtio 1.3, 5.10.6.7): they do not survive what happened to it. Without
    /// a buffer of the driver for it, the guest finds out by the RST that each of its connections gets.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn reset_transport(&mut self) -> Result<(), DeviceError> {
        self.muxer.drop_connections();
        let Some(Active { events, .. }) = &mut self.active else { return Ok(()) };
        let Some(chain) = events.pop()? else { return Ok(()) };
        let event = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET.to_le_bytes();
        let written = chain.writable.write(events.memory(), &event).unwrap_or_default();
        events.add_used(chain.head, written as u32)?;
        events.notify_driver()
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
            // The driver gives buffers for events, which wait for one.
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => return Ok(()),
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
        self.active = Some(Active { rx: RxQueue::new(rx), tx, events, blocked: false });
        Ok(())
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = self.serve(&mut active, event);
        self.active = Some(active);
        result
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        let Some(Active { rx, mut tx, events, blocked: _ }) = self.active.take() else { return Vec::new() };
        // A guest's last words, if its host program takes them. A ring that the driver broke has none.
        let _ = self.muxer.take_from_guest(&mut tx);
        self.muxer.stop();
        vec![rx.into_inner(), tx.into_inner(), events.into_inner()]
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        let Some(Active { rx, tx, events, blocked: _ }) = &self.active else { return Vec::new() };
        vec![rx.position(), tx.position(0), events.position(0)]
    }

    fn save(&self) -> DeviceState {
        DeviceState::VsockV1(VsockStateV1 {})
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::VsockV1(VsockStateV1 {}) = state else {
            return Err(state.is_not("a socket device"));
        };
        Ok(())
    }
}

const _: () = assert!(EVENT_QUEUE as usize + 1 == QUEUE_MAX_SIZES.len());
