//! What a snapshot keeps of a virtio device and of the transport that shows it to the guest.
//!
//! Plain data, encoded by postcard: a released struct is not edited, a new one is added, and enums grow at their end. It
//! comes from a file, so whoever restores it believes nothing of it.

use serde::{Deserialize, Serialize};

use super::balloon::BalloonStateV1;
use super::block::BlockStateV1;
use super::console::ConsoleStateV1;
use super::net::{NetStateV1, VhostNetStateV1};
use super::rng::RngStateV1;
use super::transport::mmio::MmioStateV1;
use super::transport::pci::PciStateV1;
use super::vsock::VsockStateV1;
use crate::state::StateError;

/// A virtio device behind its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioStateV1 {
    /// Device type number (virtio 1.3, section 5).
    pub device_type: u32,
    /// Device status (2.1).
    pub status: u32,
    /// Features that the driver acknowledged.
    pub driver_features: u64,
    /// The driver acknowledged a feature past bit 63.
    pub unknown_features: bool,
    /// Which half of the offered features the driver reads.
    pub device_features_select: u32,
    /// Which half of its features the driver writes.
    pub driver_features_select: u32,
    /// Which virtqueue the queue registers mean.
    pub queue_select: u32,
    /// Changes whenever the configuration space does.
    pub config_generation: u32,
    /// The virtqueues, in order.
    pub queues: Vec<QueueStateV1>,
    /// What is the transport's own.
    pub bus: BusState,
    /// What is the device's own.
    pub device: DeviceState,
}

/// A virtqueue: its registers, and how far the device is in its rings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStateV1 {
    /// Number of descriptors, as the driver wrote it.
    pub size: u32,
    /// The driver made it ready.
    pub ready: bool,
    /// Guest address of the descriptor table.
    pub descriptor: u64,
    /// Guest address of the available ring.
    pub driver: u64,
    /// Guest address of the used ring.
    pub device: u64,
    /// Index of the available ring up to which the device has taken chains; 0 when it is not active.
    pub next_avail: u16,
    /// Index of the used ring up to which it has given chains back; 0 when it is not active.
    pub next_used: u16,
}

/// How a guest reaches the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BusState {
    /// By virtio-mmio.
    MmioV1(MmioStateV1),
    /// By virtio-pci.
    PciV1(PciStateV1),
}

/// What is a device's own, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// Block device.
    BlockV1(BlockStateV1),
    /// Network device.
    NetV1(NetStateV1),
    /// Network device by vhost-net.
    VhostNetV1(VhostNetStateV1),
    /// Entropy device.
    RngV1(RngStateV1),
    /// Balloon.
    BalloonV1(BalloonStateV1),
    /// Console.
    ConsoleV1(ConsoleStateV1),
    /// Socket device.
    VsockV1(VsockStateV1),
}

impl DeviceState {
    /// Why a device that is `expected`, such as "a balloon", does not take this state.
    pub fn is_not(&self, expected: &str) -> StateError {
        let kind = match self {
            Self::BlockV1(_) => "a block device",
            Self::NetV1(_) => "a network device",
            Self::VhostNetV1(_) => "a network device of vhost-net",
            Self::RngV1(_) => "an entropy device",
            Self::BalloonV1(_) => "a balloon",
            Self::ConsoleV1(_) => "a console",
            Self::VsockV1(_) => "a socket device",
        };
        StateError::new(format!("the state is of {kind}, and this is {expected}"))
    }
}
