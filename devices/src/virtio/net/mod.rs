//! Network device (virtio 1.3, 5.1): one pair of queues, to a tap of the host or to passt.
//!
//! | file | what |
//! | --- | --- |
//! | `config` | PUT `/network-interfaces/{id}` |
//! | `mac`, `publish` | MAC addresses; ports of the host that lead to the guest |
//! | `layout` | the device's configuration space |
//! | `iovecs` | buffers in guest memory as system calls take them |
//! | `backend` | what frames come from and go to: the trait |
//! | `tap` | an interface of the host, with checksums and segmentation left to its kernel |
//! | `passt` | a process of the user that needs no root rights |
//! | `receive`, `transmit` | the two queues |
//! | `detour` | frames that go to the metadata service, and come from it |
//! | `device` | the device |
//! | `serve` | when which of the queues moves |
//! | `vhost` | the same device, with the queues in the hands of the host's kernel |
//!
//! # Data
//! With a tap, nothing is copied here: one system call moves a frame between the host's kernel and the buffers of the
//! guest, in which the kernel leaves, and finds, the header of virtio as well. A frame that turns out longer than what
//! the guest's buffers had room for is finished by a copy. The stream to passt has a length between frames: short
//! frames are read and written many at a time and copied, long ones go to and from the guest's buffers directly.

mod backend;
mod config;
mod detour;
mod device;
mod error;
mod iovecs;
mod layout;
mod mac;
mod passt;
mod publish;
mod receive;
mod serve;
mod state;
mod tap;
#[cfg(test)]
mod tests;
mod transmit;
mod vhost;

pub use config::{MAX_USER_MTU, NetConfig, NetConfigError, UserNetConfig};
pub use device::NetDevice;
#[cfg(any(test, feature = "test-harness"))]
pub use device::Peer;
pub use error::NetError;
pub use mac::{MacAddress, MacAddressError};
pub use publish::{Protocol, Publish, PublishError};
pub use state::{NetStateV1, VhostNetStateV1};
pub use tap::TapError;
pub use vhost::VhostNetDevice;
