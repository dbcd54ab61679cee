//! vhost-net: the host's kernel moves frames between a tap and the guest, and rvmm only hands it the queues.
//!
//! A notification of the driver goes to the kernel's thread directly; an interrupt comes by the event loop, which knows
//! the transport's way to raise it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vhost::net::VhostNet as _;
use vhost::vhost_kern::net::Net;
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Address as _, GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

use super::backend::Backend as _;
use super::config::NetConfig;
use super::device::{QUEUE_MAX_SIZES, generated_mac};
use super::error::NetError;
use super::layout::{ConfigSpace, are_complete};
use super::state::VhostNetStateV1;
use super::tap::Tap;
use crate::GuestMemory;
use crate::metrics::VhostNetMetrics;
use crate::state::StateError;
use crate::virtio::device::{
    Activation, BackendFd, DeviceError, DeviceEvent, DeviceInterrupt, QueuePosition, VirtioDevice,
};
use crate::virtio::state::DeviceState;

/// Token of the descriptor by which the kernel tells that it cannot go on; those before it are the queues' interrupts.
const ERROR_TOKEN: u32 = QUEUE_MAX_SIZES.len() as u32;
/// Features of the queues, which are the kernel's; all others are the tap's or the configuration space's.
const QUEUE_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_NET_F_MRG_RXBUF;

type Kernel = Net<Arc<GuestMemory>>;

/// What exists from DRIVER_OK to the next reset. The kernel's thread ends when it is dropped.
struct Active {
    kernel: Kernel,
    queues: Vec<Queue>,
    interrupt: Arc<dyn DeviceInterrupt>,
    /// The kernel has given the queues back for a while.
    stopped: bool,
}

/// A network device on a tap whose queues the host's kernel serves.
pub struct VhostNetDevice {
    tap: Tap,
    features: u64,
    /// Those of [`QUEUE_FEATURES`] that the kernel has.
    queue_features: u64,
    pub(super) config_space: ConfigSpace,
    /// The MAC address is the user's choice.
    pub(super) mac_given: bool,
    /// Written by the kernel when it has used buffers of a queue.
    calls: Vec<EventFd>,
    /// Written by the kernel when the driver broke a queue.
    error: EventFd,
    metrics: Arc<VhostNetMetrics>,
    active: Option<Active>,
}

impl VhostNetDevice {
    /// Attaches to the tap that `config` names, and asks the host's kernel what it can do.
    ///
    /// # Errors
    /// [`NetError`] when the configuration is wrong, or the host lacks something.
    pub fn open(config: &NetConfig) -> Result<Self, NetError> {
        config.validate()?;
        let Some(name) = &config.host_dev_name else { return Err(NetError::VhostWithoutTap) };
        let tap = Tap::open(name, config.mtu)?;
        let kernel =
            Kernel::new(Arc::new(GuestMemory::new())).map_err(|error| NetError::Vhost(host(error)))?;
        let offered = kernel.get_features().map_err(|error| NetError::Vhost(host(error)))?;
        let queue_features = QUEUE_FEATURES & offered;
        let mtu = config.mtu.and_then(|mtu| u16::try_from(mtu).ok());
        let eventfd = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(NetError::Host);
        Ok(Self {
            features: tap.offloads()
                | queue_features
                | 1 << VIRTIO_NET_F_MAC
                | 1 << VIRTIO_NET_F_STATUS
                | u64::from(mtu.is_some()) << VIRTIO_NET_F_MTU,
            queue_features,
            tap,
            config_space: ConfigSpace {
                mac: config.guest_mac.unwrap_or_else(|| generated_mac(config)),
                link_up: true,
                mtu: mtu.unwrap_or(0),
            },
            mac_given: config.guest_mac.is_some(),
            calls: QUEUE_MAX_SIZES.iter().map(|_| eventfd()).collect::<Result<_, _>>()?,
            error: eventfd()?,
            metrics: Arc::default(),
            active: None,
        })
    }

    /// What this device counts: the frames are the kernel's to count.
    pub fn metrics(&self) -> Arc<VhostNetMetrics> {
        self.metrics.clone()
    }

    /// Hands the queues and the tap to the kernel.
    fn hand_over(&self, memory: &GuestMemory, active: &Active, features: u64) -> vhost::Result<()> {
        let kernel = &active.kernel;
        kernel.set_owner()?;
        kernel.set_features(features & self.queue_features)?;
        kernel.set_mem_table(&regions(memory))?;
        for ((index, queue), call) in active.queues.iter().enumerate().zip(&self.calls) {
            if !queue.ready() {
                continue;
            }
            kernel.set_vring_num(index, queue.size())?;
            kernel.set_vring_base(index, queue.next_avail())?;
            kernel.set_vring_addr(
                index,
                &VringConfigData {
                    queue_max_size: queue.max_size(),
                    queue_size: queue.size(),
                    flags: 0,
                    desc_table_addr: queue.desc_table(),
                    used_ring_addr: queue.used_ring(),
                    avail_ring_addr: queue.avail_ring(),
                    log_addr: None,
                },
            )?;
            kernel.set_vring_call(index, call)?;
            kernel.set_vring_err(index, &self.error)?;
            if let Some(kick) = active.interrupt.queue_event(index as u16) {
                kernel.set_vring_kick(index, kick)?;
            }
            kernel.set_backend(index, Some(self.tap.file()))?;
        }
        Ok(())
    }
}

/// Guest memory as the kernel wants to know it.
fn regions(memory: &GuestMemory) -> Vec<VhostUserMemoryRegionInfo> {
    let region = |region: &vm_memory::GuestRegionMmap<_>| VhostUserMemoryRegionInfo {
        guest_phys_addr: region.start_addr().raw_value(),
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
        mmap_offset: 0,
        mmap_handle: -1,
    };
    memory.iter().map(region).collect()
}

/// Has the kernel stop using a queue, and notes how far it was. It is done with the queue when this returns.
fn stop(kernel: &Kernel, index: usize, queue: &mut Queue) -> vhost::Result<()> {
    kernel.set_backend(index, None)?;
    let next = kernel.get_vring_base(index)? as u16;
    queue.set_next_avail(next);
    // What it has taken it has given back.
    queue.set_next_used(next);
    Ok(())
}

/// What the host said.
fn host(error: vhost::Error) -> io::Error {
    match error {
        vhost::Error::VhostOpen(source) | vhost::Error::IoctlError(source) => source,
        other => io::Error::other(other.to_string()),
    }
}

impl VirtioDevice for VhostNetDevice {
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

    fn serves_queues(&self) -> bool {
        false
    }

    fn backend_fds(&self) -> Vec<BackendFd> {
        let events = self.calls.iter().chain([&self.error]);
        (0..).zip(events).map(|(token, event)| BackendFd::level(token, event.as_raw_fd())).collect()
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features } = activation;
        let failed = |what| move |source| DeviceError::Backend { what, source };
        self.tap.set_features(features).map_err(failed("cannot set the offloads of a tap"))?;
        let kernel = Kernel::new(Arc::new(memory.clone()))
            .map_err(|error| failed("cannot open /dev/vhost-net")(host(error)))?;
        let active = Active { kernel, queues, interrupt, stopped: false };
        self.hand_over(&memory, &active, features)
            .map_err(|error| failed("cannot hand the queues to vhost-net")(host(error)))?;
        self.active = Some(active);
        Ok(())
    }

    /// A start that failed half-way may have left something, from the queue that the kernel had.
    fn ignore(&mut self, token: u32) {
        if let Some(event) = self.calls.iter().chain([&self.error]).nth(token as usize) {
            let _ = event.read();
        }
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let (Some(active), DeviceEvent::Backend(token)) = (&self.active, event) else { return Ok(()) };
        if token == ERROR_TOKEN {
            return Err(DeviceError::Queue {
                queue: 0,
                message: "vhost-net cannot go on with it".to_owned(),
            });
        }
        if let Some(call) = self.calls.get(token as usize) {
            // Emptied before the driver is told, so that a later one is not lost. Nothing to read is fine.
            let _ = call.read();
            self.metrics.interrupts.increment();
            active.interrupt.signal_queue(token as u16);
        }
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        let Some(Active { kernel, mut queues, interrupt: _, stopped: _ }) = self.active.take() else {
            return Vec::new();
        };
        for (index, queue) in queues.iter_mut().enumerate().filter(|(_, queue)| queue.ready()) {
            // It can fail only for a queue that the kernel never had.
            let _ = stop(&kernel, index, queue);
        }
        for event in self.calls.iter().chain([&self.error]) {
            let _ = event.read();
        }
        queues
    }

    /// Has the kernel stop: how far it is it tells only then, and it would write to memory that is being saved.
    fn drain(&mut self) -> Result<(), DeviceError> {
        let Some(Active { kernel, queues, interrupt: _, stopped }) = &mut self.active else { return Ok(()) };
        *stopped = true;
        for (index, queue) in queues.iter_mut().enumerate().filter(|(_, queue)| queue.ready()) {
            stop(kernel, index, queue).map_err(|error| DeviceError::Backend {
                what: "cannot learn from vhost-net how far it is",
                source: host(error),
            })?;
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<(), DeviceError> {
        let Some(Active { kernel, queues, interrupt, stopped }) = &mut self.active else { return Ok(()) };
        if !std::mem::take(stopped) {
            return Ok(());
        }
        for (index, _) in queues.iter().enumerate().filter(|(_, queue)| queue.ready()) {
            kernel.set_backend(index, Some(self.tap.file())).map_err(|error| DeviceError::Backend {
                what: "cannot hand the queues to vhost-net again",
                source: host(error),
            })?;
            // A notification that came meanwhile found nobody.
            interrupt.continue_queue(index as u16);
        }
        Ok(())
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        let queues = self.active.iter().flat_map(|active| &active.queues);
        queues
            .map(|queue| QueuePosition { next_avail: queue.next_avail(), next_used: queue.next_used() })
            .collect()
    }

    fn save(&self) -> DeviceState {
        let Self {
            config_space: ConfigSpace { mac, link_up: _, mtu },
            // The configuration's, or the host's.
            tap: _,
            features: _,
            queue_features: _,
            mac_given: _,
            calls: _,
            error: _,
            metrics: _,
            // The queues are saved elsewhere.
            active: _,
        } = self;
        DeviceState::VhostNetV1(VhostNetStateV1 { mac: mac.bytes(), mtu: *mtu })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::VhostNetV1(state) = state else {
            return Err(state.is_not("a network device of vhost-net"));
        };
        self.take_over(state)
    }
}
