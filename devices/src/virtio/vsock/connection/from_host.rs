//! What the host's socket says, and what epoll is asked to say of it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::{Connection, LINGER_TIMEOUT, Phase, retry};
use crate::virtio::vsock::backlog::Backlog;

impl Connection {
    /// Epoll says that the socket is `ready`, by `token`. Of what was known already it would tell again and again, so it
    /// is told to stop.
    ///
    /// # Errors
    /// What the host said.
    pub(in super::super) fn socket_ready(
        &mut self,
        ready: EventSet,
        epoll: &Epoll,
        token: u64,
    ) -> io::Result<()> {
        if ready.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            if let Some(stream) = self.stream.as_ref().filter(|_| self.watched) {
                epoll.ctl(ControlOperation::Delete, stream.as_raw_fd(), EpollEvent::default())?;
            }
            self.watched = false;
            self.hang_up();
            return Ok(());
        }
        let news = self.needed();
        if ready.contains(EventSet::IN) {
            self.readable = true;
        }
        if ready.contains(EventSet::OUT) {
            self.flush();
        }
        if news.contains(ready) { Ok(()) } else { self.set_interest(epoll, token, self.needed()) }
    }

    /// The host program has closed, or no way is open any more. Nothing can be written, and reading comes to an end.
    fn hang_up(&mut self) {
        match self.phase {
            Phase::Requested => return self.kill(),
            Phase::Lingering => return self.end_linger(),
            Phase::Established | Phase::Closing | Phase::Over => {}
        }
        self.host_stops_receiving();
        self.readable = true;
        if !self.guest_receives {
            self.host_sends = false;
        }
    }

    pub(super) fn host_stops_receiving(&mut self) {
        self.host_receives = false;
        let dropped = self.backlog.len() as u32;
        self.backlog = Backlog::default();
        self.forward(dropped);
        if self.phase == Phase::Lingering {
            self.end_linger();
        }
    }

    /// Writes what the socket takes of what it did not take at once.
    fn flush(&mut self) {
        let Some(stream) = &self.stream else { return };
        if self.backlog.is_empty() {
            return;
        }
        match self.backlog.flush(|bytes| retry(|| stream.write(bytes))) {
            Ok(count) => {
                self.forward(count as u32);
                if self.phase == Phase::Lingering && count > 0 {
                    self.deadline = Some(Instant::now() + LINGER_TIMEOUT);
                }
            }
            Err(_) => return self.host_stops_receiving(),
        }
        if self.backlog.is_empty() {
            if self.phase == Phase::Lingering {
                self.end_linger();
            } else if !self.guest_sends {
                self.shutdown_stream(Shutdown::Write);
            }
        }
    }

    pub(super) fn end_linger(&mut self) {
        let owed = self.owed;
        self.forget();
        self.owed = owed;
    }

    pub(super) fn shutdown_stream(&self, how: Shutdown) {
        if let Some(stream) = &self.stream {
            stream.shutdown(how);
        }
    }

    /// Has epoll tell of the socket by `token`.
    ///
    /// # Errors
    /// What the host said.
    pub(in super::super) fn watch(
        &mut self,
        epoll: &Epoll,
        token: u64,
        operation: ControlOperation,
    ) -> io::Result<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        self.interest = self.needed();
        epoll.ctl(operation, stream.as_raw_fd(), EpollEvent::new(self.interest, token))?;
        self.watched = true;
        Ok(())
    }

    /// What has to be told of: only what is not known already.
    fn needed(&self) -> EventSet {
        let mut needed = EventSet::empty();
        needed.set(EventSet::IN, self.wants_data() && !self.readable);
        needed.set(EventSet::OUT, !self.backlog.is_empty());
        needed
    }

    /// Has epoll tell of what is needed now. What it tells of besides stays until it is of no use once more: a change
    /// of interest is a system call.
    pub(in super::super) fn renew_interest(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        self.set_interest(epoll, token, self.interest | self.needed())
    }

    fn set_interest(&mut self, epoll: &Epoll, token: u64, interest: EventSet) -> io::Result<()> {
        let Some(stream) = self.stream.as_ref().filter(|_| self.watched && interest != self.interest) else {
            return Ok(());
        };
        epoll.ctl(ControlOperation::Modify, stream.as_raw_fd(), EpollEvent::new(interest, token))?;
        self.interest = interest;
        Ok(())
    }
}
