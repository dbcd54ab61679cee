//! What host programs do: connect, say to which port, send, read, close.

use std::io;
use std::os::fd::AsRawFd;

use log::{debug, warn};
use vmm_sys_util::epoll::{ControlOperation, EpollEvent, EventSet};

use super::{CLIENT_TOKEN, LISTENER_TOKEN, Muxer, TIMER_TOKEN, WATCH_TOKEN};
use crate::virtio::vsock::clients::Said;
use crate::virtio::vsock::connection::Connection;
use crate::virtio::vsock::packet::Ports;
use crate::virtio::vsock::stream::Stream;

/// Lowest port that a host program's end of a connection gets, out of the way of those that guests connect to.
pub(super) const FIRST_PORT: u32 = 1 << 30;
pub(super) const LAST_PORT: u32 = (1 << 31) - 1;
/// Events of host programs that one call takes.
const MAX_EVENTS: usize = 64;
/// Clients that are accepted at a time.
const MAX_ACCEPTS: usize = 16;

impl Muxer {
    /// Takes what the host's sockets have to say, a share at a time: the descriptor stays readable while there is more.
    ///
    /// # Errors
    /// What the host said.
    pub(in super::super) fn poll(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); MAX_EVENTS];
        let count = match self.epoll.wait(0, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        for event in events.iter().take(count) {
            match event.data() {
                LISTENER_TOKEN => self.accept(),
                TIMER_TOKEN => self.tick(),
                WATCH_TOKEN => self.check_file(),
                client if client >= CLIENT_TOKEN => self.listen_to(client - CLIENT_TOKEN),
                token => self.socket_ready(token, event.event_set()),
            }
        }
        Ok(())
    }

    fn socket_ready(&mut self, token: u64, ready: EventSet) {
        let Some(index) = self.table.find_token(token) else { return };
        let Some(connection) = self.table.get_mut(index) else { return };
        if connection.socket_ready(ready, &self.epoll, token).is_err() {
            connection.kill();
        }
        self.settle(index);
    }

    fn accept(&mut self) {
        for _ in 0..MAX_ACCEPTS {
            match Stream::accept(self.listener.as_raw_fd()) {
                Ok(stream) => self.add_client(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    // No descriptor left, say. The client waits, and epoll must not tell of it all the time.
                    debug!("vsock: cannot accept a client yet: {error}");
                    self.metrics.host_errors.increment();
                    self.deafen();
                    self.tick_later();
                    return;
                }
            }
        }
    }

    fn add_client(&mut self, stream: Stream) {
        let (number, dropped) = self.clients.add(stream);
        if dropped.is_some() {
            self.metrics.rejected_clients.increment();
        }
        let Some(fd) = self.clients.fd(number) else { return };
        let watched = EpollEvent::new(EventSet::IN, CLIENT_TOKEN + number);
        if self.epoll.ctl(ControlOperation::Add, fd, watched).is_err() {
            self.clients.remove(number);
            self.metrics.host_errors.increment();
        }
    }

    fn listen_to(&mut self, number: u64) {
        match self.clients.listen(number) {
            None | Some(Said::Nothing) => {}
            Some(Said::Nonsense) => {
                debug!("vsock: a client of {} did not say CONNECT and a port", self.path.display());
                self.metrics.rejected_clients.increment();
                self.clients.remove(number);
            }
            Some(Said::Connect(port)) => {
                if let Some(stream) = self.clients.remove(number) {
                    self.connect_to_guest(stream, port);
                }
            }
        }
    }

    fn connect_to_guest(&mut self, stream: Stream, guest: u32) {
        let host = if self.table.is_full() { None } else { self.free_port(guest) };
        let Some(host) = host else {
            warn_of_limit();
            self.metrics.rejected_clients.increment();
            return;
        };
        let (ports, window) = (Ports { host, guest }, self.table.window());
        let connection = Connection::from_host(ports, self.guest_cid, stream, window);
        self.insert(connection, ControlOperation::Modify);
    }

    /// A host port that has no connection to the guest's port `guest`. There is one, as there are more ports than
    /// connections.
    fn free_port(&mut self, guest: u32) -> Option<u32> {
        for _ in 0..=self.table.len() {
            let host = self.next_port;
            self.next_port = if host == LAST_PORT { FIRST_PORT } else { host + 1 };
            if self.table.find(Ports { host, guest }).is_none() {
                return Some(host);
            }
        }
        None
    }
}

/// Says once that there are too many connections.
pub(super) fn warn_of_limit() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        warn!(
            "vsock: there are {} connections, and no more can be made",
            crate::virtio::vsock::MAX_CONNECTIONS
        );
    });
}
