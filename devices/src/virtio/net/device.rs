#[cfg(any(test, feature = "test-harness"))]
use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use super::backend::{Backend, MAX_PACKET_LEN};
use super::config::{MAX_USER_MTU, NetConfig, NetConfigError};
use super::detour::Detour;
use super::error::NetError;
use super::layout::{ConfigSpace, are_complete};
use super::mac::MacAddress;
use super::passt::{NoPasst, PasstBackend};
use super::receive::ReceiveQueue;
use super::serve::FIRST_ROOM;
use super::tap::Tap;
use super::transmit::TransmitQueue;
use crate::metrics::NetMetrics;
use crate::mmds::Mmds;
use crate::rate_limiter::{RateLimiter, RateLimiterConfig};
use crate::state::StateError;
use crate::virtio::device::{
    Activation, BackendFd, DeviceError, DeviceEvent, DeviceInterrupt, QueuePosition, VirtioDevice,
};
use crate::virtio::queue::VirtQueue;
use crate::virtio::state::DeviceState;

/// receiveq1.
pub(super) const RECEIVE_QUEUE: u16 = 0;
/// transmitq1.
pub(super) const TRANSMIT_QUEUE: u16 = 1;
pub(super) const QUEUE_MAX_SIZES: [u16; 2] = [256, 256];

/// Tokens of the descriptors that the event loop watches.
pub(super) const BACKEND_TOKEN: u32 = 0;
pub(super) const RECEIVE_LIMITER_TOKEN: u32 = 1;
pub(super) const TRANSMIT_LIMITER_TOKEN: u32 = 2;
pub(super) const DETOUR_TOKEN: u32 = 3;

/// Features with which a packet can be longer than the MTU.
const GUEST_SEGMENTS: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_UFO
    | 1 << VIRTIO_NET_F_GUEST_USO4
    | 1 << VIRTIO_NET_F_GUEST_USO6;

/// What exists from DRIVER_OK to the next reset.
pub(super) struct Active {
    pub(super) receive: ReceiveQueue,
    pub(super) transmit: TransmitQueue,
    pub(super) interrupt: Arc<dyn DeviceInterrupt>,
    /// Room that the next packet gets, if the driver has it: the longest of late.
    pub(super) expected: usize,
}

/// A network device.
pub struct NetDevice {
    pub(super) id: String,
    pub(super) backend: Box<dyn Backend>,
    /// The way to the metadata service, if there is one from this interface.
    pub(super) detour: Option<Detour>,
    pub(super) features: u64,
    pub(super) config_space: ConfigSpace,
    /// The MAC address is the user's choice.
    pub(super) mac_given: bool,
    /// The state of the link has changed while no driver was there that could be told.
    pub(super) link_news: bool,
    pub(super) receive_limiter: RateLimiter,
    pub(super) transmit_limiter: RateLimiter,
    pub(super) metrics: Arc<NetMetrics>,
    pub(super) active: Option<Active>,
}

impl NetDevice {
    /// Attaches to the tap that `config` names, or finds passt and looks whether the published ports are free. passt is
    /// started when a driver is there.
    ///
    /// # Errors
    /// [`NetError`] when the configuration is wrong, or the host lacks something.
    pub fn open(config: &NetConfig) -> Result<Self, NetError> {
        config.validate()?;
        match (&config.host_dev_name, &config.user) {
            (Some(tap), _) => {
                let backend = Tap::open(tap, config.mtu)?;
                Self::with_backend(config, Box::new(backend), config.mtu)
            }
            (None, Some(user)) => {
                for publish in &user.publish {
                    publish.check().map_err(|source| NetError::port(*publish, source))?;
                }
                let mtu = config.mtu.unwrap_or(MAX_USER_MTU);
                let backend = PasstBackend::new(user, mtu).map_err(|error| match error {
                    NoPasst::NotFound => NetError::NoPasst,
                    NoPasst::Host(source) => NetError::Host(source),
                })?;
                Self::with_backend(config, Box::new(backend), Some(mtu))
            }
            (None, None) => Err(NetError::Config(NetConfigError::NoBackend { id: config.iface_id.clone() })),
        }
    }

    fn with_backend(
        config: &NetConfig,
        backend: Box<dyn Backend>,
        mtu: Option<u32>,
    ) -> Result<Self, NetError> {
        let limiter = |config: &Option<RateLimiterConfig>| {
            RateLimiter::new(&config.clone().unwrap_or_default()).map_err(NetError::Host)
        };
        let mut features = backend.offloads()
            | 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_NET_F_MAC
            | 1 << VIRTIO_NET_F_STATUS
            | 1 << VIRTIO_NET_F_MRG_RXBUF;
        if mtu.is_some() {
            features |= 1 << VIRTIO_NET_F_MTU;
        }
        Ok(Self {
            features,
            backend,
            detour: None,
            config_space: ConfigSpace {
                mac: config.guest_mac.unwrap_or_else(|| generated_mac(config)),
                link_up: true,
                mtu: mtu.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(0),
            },
            mac_given: config.guest_mac.is_some(),
            link_news: false,
            receive_limiter: limiter(&config.rx_rate_limiter)?,
            transmit_limiter: limiter(&config.tx_rate_limiter)?,
            id: config.iface_id.clone(),
            metrics: Arc::default(),
            active: None,
        })
    }

    /// Starts what is otherwise started when a driver is there.
    ///
    /// # Errors
    /// What the host said.
    pub fn start_backend(&mut self) -> Result<(), NetError> {
        self.backend.start().map_err(NetError::Backend)
    }

    /// What this device counts.
    pub fn metrics(&self) -> Arc<NetMetrics> {
        self.metrics.clone()
    }

    /// The guest's MAC address.
    pub fn mac(&self) -> MacAddress {
        self.config_space.mac
    }

    /// Gives the guest a way to the metadata service by this interface, before a driver is there.
    ///
    /// # Errors
    /// When the host has no descriptor left for a timer.
    pub fn add_detour(&mut self, mmds: Arc<Mmds>) -> Result<(), NetError> {
        self.detour = Some(Detour::new(mmds).map_err(NetError::Host)?);
        Ok(())
    }

    /// Changes what limits the guest's receiving and sending; without one, nothing changes. A bucket that the limiter
    /// does not name stays, too.
    pub fn set_rate_limiters(&mut self, rx: Option<&RateLimiterConfig>, tx: Option<&RateLimiterConfig>) {
        for (limiter, config, queue) in
            [(&mut self.receive_limiter, rx, RECEIVE_QUEUE), (&mut self.transmit_limiter, tx, TRANSMIT_QUEUE)]
        {
            let Some(config) = config else { continue };
            limiter.update(config);
            if let Some(active) = &self.active {
                active.interrupt.continue_queue(queue);
            }
        }
    }
}

/// The same address each time for the same tap of the same host, or for the same id with passt, where the guest is
/// alone.
pub(super) fn generated_mac(config: &NetConfig) -> MacAddress {
    match &config.host_dev_name {
        Some(tap) => MacAddress::derived_from(&[&host_name(), tap.as_bytes()]),
        None => MacAddress::derived_from(&[config.iface_id.as_bytes()]),
    }
}

#[expect(unsafe_code, reason = "gethostname(2)")]
fn host_name() -> Vec<u8> {
    let mut name = [0_u8; 64];
    // SAFETY: the host writes at most `name.len()` bytes to `name`, which is borrowed for the call.
    let result = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    if result == 0 { name.into_iter().take_while(|byte| *byte != 0).collect() } else { Vec::new() }
}

impl VirtioDevice for NetDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn accepts(&self, features: u64) -> bool {
        are_complete(features)
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn backend_fds(&self) -> Vec<BackendFd> {
        let mut fds = vec![
            BackendFd::edge(BACKEND_TOKEN, self.backend.fd()),
            BackendFd::level(RECEIVE_LIMITER_TOKEN, self.receive_limiter.fd()),
            BackendFd::level(TRANSMIT_LIMITER_TOKEN, self.transmit_limiter.fd()),
        ];
        fds.extend(self.detour.iter().map(|detour| BackendFd::level(DETOUR_TOKEN, detour.fd())));
        fds
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features } = activation;
        let mut queues = queues.into_iter();
        let (Some(receive), Some(transmit)) = (queues.next(), queues.next()) else { return Ok(()) };
        self.backend
            .set_features(features)
            .map_err(|source| DeviceError::Backend { what: "cannot set the offloads of a tap", source })?;
        let queue = |index, queue| VirtQueue::new(index, queue, memory.clone(), interrupt.clone());
        let mergeable = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        self.active = Some(Active {
            receive: ReceiveQueue::new(queue(RECEIVE_QUEUE, receive), mergeable),
            transmit: TransmitQueue::new(queue(TRANSMIT_QUEUE, transmit)),
            expected: if features & GUEST_SEGMENTS != 0 { MAX_PACKET_LEN } else { FIRST_ROOM },
            interrupt: interrupt.clone(),
        });
        // What has come before this is not told again.
        interrupt.continue_queue(RECEIVE_QUEUE);
        Ok(())
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = self.handle(&mut active, event);
        self.active = Some(active);
        result
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.receive_limiter.disarm();
        self.transmit_limiter.disarm();
        if let Some(detour) = &mut self.detour {
            detour.reset();
        }
        // What is half in buffers that are the driver's again is lost.
        self.backend.drop_packet();
        let Some(Active { receive, transmit, .. }) = self.active.take() else { return Vec::new() };
        vec![receive.queue.into_inner(), transmit.queue.into_inner()]
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = self.deliver_waiting(&mut active);
        self.active = Some(active);
        result
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        self.active
            .iter()
            .flat_map(|active| [active.receive.position(), active.transmit.position()])
            .collect()
    }

    fn save(&self) -> DeviceState {
        DeviceState::NetV1(self.saved())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::NetV1(state) = state else { return Err(state.is_not("a network device")) };
        self.take_over(state)
    }
}

/// What a network device of a test or a fuzz target talks to.
#[cfg(any(test, feature = "test-harness"))]
#[derive(Debug)]
pub enum Peer {
    /// A socket with packets: a header and a frame each, as a tap has them.
    Packets(OwnedFd),
    /// A socket with frames, as passt has them.
    Stream(std::os::unix::net::UnixStream),
}

#[cfg(any(test, feature = "test-harness"))]
impl NetDevice {
    /// A device whose other end is a socket.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn over_socket(config: &NetConfig, peer: Peer) -> Result<Self, NetError> {
        let backend: Box<dyn Backend> = match peer {
            Peer::Packets(socket) => Box::new(Tap::over_socket(socket)),
            Peer::Stream(socket) => {
                Box::new(super::passt::StreamBackend::new(socket).map_err(NetError::Host)?)
            }
        };
        Self::with_backend(config, backend, config.mtu)
    }
}
