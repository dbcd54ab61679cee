//! A network without root rights: frames go to passt(1), a process of the same user that makes connections of the host
//! out of them.
//!
//! | file | what |
//! | --- | --- |
//! | `stream` | frames on a stream socket, as passt speaks it |
//! | `process` | finding, starting and ending passt |

mod process;
mod stream;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use log::info;
use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_CSUM;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

pub(super) use process::{NoPasst, program};
use process::{Passt, Plan};
use stream::Stream;
#[cfg(any(test, feature = "test-harness"))]
pub(super) use stream::StreamBackend;

use super::backend::{Backend, Received, Sent};
use super::config::UserNetConfig;
use super::iovecs::IoVecs;

/// Tokens of what the epoll instance watches.
const SOCKET: u64 = 0;
const OUTPUT: u64 = 1;

/// A passt that is started once the guest drives the device, and ends with this.
pub(super) struct PasstBackend {
    plan: Plan,
    /// Watches what does not exist before passt is started.
    epoll: Epoll,
    /// Dropped before the process is, which ends when its socket does.
    stream: Option<Stream>,
    passt: Option<Passt>,
    features: u64,
}

impl PasstBackend {
    /// Finds passt, and starts nothing yet.
    pub(super) fn new(config: &UserNetConfig, mtu: u32) -> Result<Self, NoPasst> {
        let plan = Plan::new(config, mtu)?;
        let epoll = Epoll::new().map_err(NoPasst::Host)?;
        Ok(Self { plan, epoll, stream: None, passt: None, features: 0 })
    }

    fn watch(&self, fd: RawFd, interest: EventSet, token: u64) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(interest, token))
    }
}

impl Backend for PasstBackend {
    /// What comes over a socket of the same host needs no checksum to be looked at.
    fn offloads(&self) -> u64 {
        1 << VIRTIO_NET_F_GUEST_CSUM
    }

    fn max_frame_len(&self) -> usize {
        stream::MAX_FRAME_LEN
    }

    fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.features = features;
        if let Some(stream) = &mut self.stream {
            stream.set_features(features);
        }
        Ok(())
    }

    fn start(&mut self) -> io::Result<()> {
        if self.stream.is_some() {
            return Ok(());
        }
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let passt = self.plan.start(&theirs)?;
        info!("passt is process {}", passt.id());
        self.watch(ours.as_raw_fd(), EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED, SOCKET)?;
        if let Some(output) = passt.output() {
            self.watch(output, EventSet::IN, OUTPUT)?;
        }
        self.passt = Some(passt);
        self.stream.insert(Stream::new(ours)).set_features(self.features);
        Ok(())
    }

    fn tick(&mut self) {
        let mut events = [EpollEvent::default(); 2];
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        let told = events.iter().take(count).any(|event| event.data() == OUTPUT);
        if let Some(passt) = self.passt.as_mut().filter(|_| told) {
            passt.log_output();
        }
    }

    fn send(&mut self, packet: &mut IoVecs) -> Sent {
        match &mut self.stream {
            Some(stream) => stream.send(packet),
            None => Sent::Refused(io::ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> Result<(), io::Error> {
        self.stream.as_mut().map_or(Ok(()), Stream::flush)
    }

    fn receive(&mut self, room: &mut IoVecs) -> Received {
        self.stream.as_mut().map_or(Received::Nothing, |stream| stream.receive(room))
    }

    fn holds_room(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::holds_room)
    }

    fn drop_packet(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.drop_packet();
        }
    }

    fn obituary(&mut self) -> Option<String> {
        self.passt.as_mut().map(Passt::obituary)
    }
}
