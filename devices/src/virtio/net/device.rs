use std::io;
#[cfg(any(test, feature = "test-harness"))]
use std::os::fd::OwnedFd;
use std::sync::Arc;

use log::{debug, warn};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use super::backend::{Backend, HEADER_LEN, MAX_PACKET_LEN, Received, Sent};
use super::config::{MAX_USER_MTU, NetConfig, NetConfigError};
use super::detour::Detour;
use super::error::NetError;
use super::layout::ConfigSpace;
use super::mac::MacAddress;
use super::passt::{NoPasst, PasstBackend};
use super::receive::ReceiveQueue;
use super::tap::Tap;
use super::transmit::{Next, TransmitQueue};
use crate::metrics::NetMetrics;
use crate::mmds::Mmds;
use crate::rate_limiter::{RateLimiter, RateLimiterConfig};
use crate::virtio::device::{Activation, BackendFd, DeviceError, DeviceEvent, DeviceInterrupt, VirtioDevice};
use crate::virtio::queue::VirtQueue;

/// receiveq1.
const RECEIVE_QUEUE: u16 = 0;
/// transmitq1.
const TRANSMIT_QUEUE: u16 = 1;
pub(super) const QUEUE_MAX_SIZES: [u16; 2] = [256, 256];

/// Tokens of the descriptors that the event loop watches.
const BACKEND_TOKEN: u32 = 0;
const RECEIVE_LIMITER_TOKEN: u32 = 1;
const TRANSMIT_LIMITER_TOKEN: u32 = 2;
const DETOUR_TOKEN: u32 = 3;

/// Packets that one call of `process` moves in one direction before other devices get their turn. A buffer that is of no
/// use counts like one.
const MAX_PACKETS_PER_CALL: usize = 128;
/// Bytes after which it moves no more.
const MAX_BYTES_PER_CALL: usize = 1 << 20;
/// A frame for the metadata service, which is answered here and now, counts like so many others.
const DETOURED_COST: usize = 8;

/// Room that a packet is given at first: an ordinary frame of Ethernet.
const FIRST_ROOM: usize = 1526;
/// Features with which a packet can be longer than the MTU.
const GUEST_SEGMENTS: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_UFO
    | 1 << VIRTIO_NET_F_GUEST_USO4
    | 1 << VIRTIO_NET_F_GUEST_USO6;

/// What exists from DRIVER_OK to the next reset.
struct Active {
    receive: ReceiveQueue,
    transmit: TransmitQueue,
    interrupt: Arc<dyn DeviceInterrupt>,
    /// Room that the next packet gets, if the driver has it: the longest of late.
    expected: usize,
}

/// Where a packet for the guest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Backend,
    Detour,
}

/// What has become of a packet of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// It is gone, and took as long as so many packets usually do.
    Gone(usize),
    /// It has to wait.
    Waits,
}

/// A network device.
pub struct NetDevice {
    id: String,
    backend: Box<dyn Backend>,
    /// The way to the metadata service, if there is one from this interface.
    detour: Option<Detour>,
    features: u64,
    config_space: ConfigSpace,
    receive_limiter: RateLimiter,
    transmit_limiter: RateLimiter,
    metrics: Arc<NetMetrics>,
    active: Option<Active>,
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
            receive_limiter: limiter(&config.rx_rate_limiter)?,
            transmit_limiter: limiter(&config.tx_rate_limiter)?,
            id: config.iface_id.clone(),
            metrics: Arc::default(),
            active: None,
        })
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

    fn handle(&mut self, active: &mut Active, event: DeviceEvent) -> Result<(), DeviceError> {
        self.handle_event(active, event)?;
        if let Some(detour) = &mut self.detour {
            detour.arm();
        }
        Ok(())
    }

    fn handle_event(&mut self, active: &mut Active, event: DeviceEvent) -> Result<(), DeviceError> {
        match event {
            DeviceEvent::Queue(RECEIVE_QUEUE) => {
                self.start(active);
                self.receive(active)
            }
            DeviceEvent::Queue(TRANSMIT_QUEUE) => {
                self.start(active);
                self.transmit_and_answer(active)
            }
            DeviceEvent::Backend(BACKEND_TOKEN) => {
                self.backend.tick();
                self.receive(active)?;
                if let Err(error) = self.backend.flush() {
                    self.lose_link(active, &error);
                }
                if active.transmit.stalled { self.transmit_and_answer(active) } else { Ok(()) }
            }
            DeviceEvent::Backend(RECEIVE_LIMITER_TOKEN) => {
                self.receive_limiter.wake();
                self.receive(active)
            }
            DeviceEvent::Backend(TRANSMIT_LIMITER_TOKEN) => {
                self.transmit_limiter.wake();
                self.transmit_and_answer(active)
            }
            DeviceEvent::Backend(DETOUR_TOKEN) => {
                if let Some(detour) = &mut self.detour {
                    detour.wake();
                }
                self.answer(active)
            }
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => Ok(()),
        }
    }

    fn start(&mut self, active: &Active) {
        if self.config_space.link_up
            && let Err(error) = self.backend.start()
        {
            self.lose_link(active, &error);
        }
    }

    /// The backend is gone for good: the guest sees a cable that was pulled out.
    fn lose_link(&mut self, active: &Active, error: &io::Error) {
        if !std::mem::replace(&mut self.config_space.link_up, false) {
            return;
        }
        let why = self.backend.obituary().unwrap_or_else(|| error.to_string());
        warn!("network interface {}: the link is down, the VM goes on: {why}", self.id);
        active.interrupt.signal_config_change();
    }

    /// Gives the guest what the backend has for it.
    fn receive(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        active.receive.queue.disable_notifications()?;
        let (mut packets, mut bytes) = (0, 0);
        while self.config_space.link_up {
            if packets >= MAX_PACKETS_PER_CALL || bytes >= MAX_BYTES_PER_CALL {
                active.receive.queue.continue_later();
                break;
            }
            packets += 1;
            let Active { receive, expected, .. } = active;
            let filled = receive.fill(*expected)?;
            packets += receive.take_useless();
            if !filled {
                self.metrics.rx_no_buffers.increment();
                // Out of buffers: the driver tells of new ones.
                if receive.queue.enable_notifications()? {
                    continue;
                }
                break;
            }
            let len = match receive.packet.take() {
                Some(len) => len,
                None => match self.next_packet(receive) {
                    (_, Received::Packet(len)) => len,
                    (source, Received::NeedsRoom(len)) => {
                        // From now on there is room for one as long as this.
                        *expected = len;
                        if self.make_room(receive, len, source)? {
                            continue;
                        }
                        break;
                    }
                    (_, Received::Nothing) => break,
                    (_, Received::Gone(error)) => {
                        self.lose_link(active, &error);
                        break;
                    }
                },
            };
            if !self.receive_limiter.take(frame_len(len) as u64) {
                self.metrics.rx_limited.increment();
                receive.packet = Some(len);
                break;
            }
            *expected = (*expected - *expected / 64).max(len).max(FIRST_ROOM);
            receive.deliver(len)?;
            self.metrics.rx_frames.increment();
            self.metrics.rx_bytes.add(frame_len(len) as u64);
            bytes += len;
        }
        active.receive.queue.notify_driver()
    }

    /// Puts the next packet for the guest into the front of the room. Backend and metadata service take turns.
    fn next_packet(&mut self, receive: &mut ReceiveQueue) -> (Source, Received) {
        let room = &mut receive.room;
        let Some(detour) = &mut self.detour else { return (Source::Backend, self.backend.receive(room)) };
        if detour.takes_turn() && !self.backend.holds_room() {
            return (Source::Detour, detour.receive(room));
        }
        match self.backend.receive(room) {
            Received::Nothing if detour.has_frame() && !self.backend.holds_room() => {
                (Source::Detour, detour.receive(room))
            }
            received => {
                detour.pass_turn();
                (Source::Backend, received)
            }
        }
    }

    /// Whether it makes sense to ask `source` again for a packet of `len` bytes, which did not fit.
    fn make_room(
        &mut self,
        receive: &mut ReceiveQueue,
        len: usize,
        source: Source,
    ) -> Result<bool, DeviceError> {
        receive.fill(len)?;
        if receive.room.bytes() >= len {
            return Ok(true);
        }
        if receive.is_full() {
            debug!("network interface {}: no room for a frame of {} bytes", self.id, frame_len(len));
            self.metrics.rx_dropped.increment();
            match (source, &mut self.detour) {
                (Source::Detour, Some(detour)) => detour.drop_packet(),
                _ => self.backend.drop_packet(),
            }
            return Ok(true);
        }
        self.metrics.rx_no_buffers.increment();
        receive.queue.enable_notifications()
    }

    /// Gives the guest what the metadata service has for it.
    fn answer(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if self.detour.as_ref().is_some_and(Detour::has_frame) { self.receive(active) } else { Ok(()) }
    }

    fn transmit_and_answer(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        self.transmit(active)?;
        self.answer(active)
    }

    /// Gives the backend what the guest has for it.
    fn transmit(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        active.transmit.stalled = false;
        active.transmit.queue.disable_notifications()?;
        let (mut packets, mut bytes) = (0, 0);
        loop {
            let mut waits = false;
            while packets < MAX_PACKETS_PER_CALL && bytes < MAX_BYTES_PER_CALL {
                match active.transmit.next(self.backend.max_frame_len())? {
                    Next::None => break,
                    Next::Nonsense => {
                        self.metrics.tx_invalid.increment();
                        packets += 1;
                    }
                    Next::Packet => match self.send(active)? {
                        Moved::Waits => {
                            waits = true;
                            break;
                        }
                        Moved::Gone(cost) => {
                            packets += cost;
                            bytes += active.transmit.packet.bytes();
                        }
                    },
                }
            }
            if let Err(error) = self.backend.flush() {
                self.lose_link(active, &error);
            }
            if waits {
                break;
            }
            if packets >= MAX_PACKETS_PER_CALL || bytes >= MAX_BYTES_PER_CALL {
                active.transmit.queue.continue_later();
                break;
            }
            if !active.transmit.queue.enable_notifications()? {
                break;
            }
            // Counts as a packet: a driver may move the index to and fro.
            packets += 1;
        }
        active.transmit.queue.notify_driver()
    }

    /// Sends the packet that is next.
    fn send(&mut self, active: &mut Active) -> Result<Moved, DeviceError> {
        let transmit = &mut active.transmit;
        let frame_len = frame_len(transmit.packet.bytes()) as u64;
        if !self.config_space.link_up {
            self.metrics.tx_dropped.increment();
            transmit.done()?;
            return Ok(Moved::Gone(1));
        }
        if !self.transmit_limiter.take(frame_len) {
            self.metrics.tx_limited.increment();
            return Ok(Moved::Waits);
        }
        if self.detour.as_mut().is_some_and(|detour| detour.take(&transmit.packet)) {
            transmit.done()?;
            return Ok(Moved::Gone(DETOURED_COST));
        }
        match self.backend.send(&mut transmit.packet) {
            Sent::Taken => {
                self.metrics.tx_frames.increment();
                self.metrics.tx_bytes.add(frame_len);
            }
            Sent::Full => {
                self.transmit_limiter.refund(frame_len);
                self.metrics.tx_stalled.increment();
                transmit.stalled = true;
                return Ok(Moved::Waits);
            }
            Sent::Refused(error) => {
                debug!("network interface {}: a frame is refused: {error}", self.id);
                self.metrics.tx_errors.increment();
            }
            Sent::Gone(error) => {
                transmit.done()?;
                self.metrics.tx_dropped.increment();
                self.lose_link(active, &error);
                return Ok(Moved::Gone(1));
            }
        }
        transmit.done()?;
        Ok(Moved::Gone(1))
    }
}

/// Length of the frame in a packet.
fn frame_len(packet_len: usize) -> usize {
    packet_len.saturating_sub(HEADER_LEN)
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
