//! Console device (virtio 1.3, 5.3) with one port: `/dev/hvc0`.
//!
//! A byte of the serial port is an exit of its own, and the vCPU writes it; here a whole line or more is one
//! notification, and the event loop passes it on. So that nobody who leaves the output unread stops the event loop,
//! output goes to a [`Sink`] that never waits: when it is full, the driver's buffers stay where they are until there is
//! room again, and the guest waits.

mod config;
mod device;
mod layout;
mod state;
#[cfg(test)]
mod tests;

use std::io;

pub use config::ConsoleConfig;
pub use device::{ConsoleDevice, INPUT_CAPACITY, MAX_OUTPUT_PER_CALL};
pub use state::ConsoleStateV1;
use vmm_sys_util::eventfd::EventFd;

/// Where the output of a console goes. Nobody else adds to it.
pub trait Sink: Send {
    /// How many bytes there is room for now. After an answer of 0 the room notifier is written once there is some.
    fn room(&mut self) -> usize;

    /// Takes `bytes`, no more than there is room for. Never waits.
    ///
    /// # Errors
    /// What the host said; the bytes are lost.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Names an eventfd that is written when there is room again.
    fn set_room_notifier(&mut self, notifier: EventFd);
}
