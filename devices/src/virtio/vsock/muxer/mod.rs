//! What stands between the guest's queues and the host's sockets: which packet belongs to which connection, who may
//! connect, whose turn it is.

mod from_guest;
mod from_host;
mod state;
mod to_guest;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, warn};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use super::clients::Clients;
use super::config::VsockConfig;
use super::connection::Connection;
use super::packet::Header;
use super::table::Table;
use super::watch::FileWatch;
use crate::metrics::VsockMetrics;
use crate::unix_socket::ListeningSocket;

pub(super) use from_guest::Turn;

/// RSTs that may wait for a receive buffer and belong to no connection. With more, the guest's packets wait until it has
/// taken some.
const MAX_RESETS: usize = 256;
/// How often deadlines are looked at while there are any.
const TICK: Duration = Duration::from_millis(500);

/// Epoll's name of the listening socket; connections are below 2^48.
const LISTENER_TOKEN: u64 = u64::MAX;
/// Epoll's name of the timer.
const TIMER_TOKEN: u64 = u64::MAX - 1;
/// Epoll's name of the watch on the listening socket's file.
const WATCH_TOKEN: u64 = u64::MAX - 2;
/// Added to the number of a client that has not said where it wants to go.
const CLIENT_TOKEN: u64 = 1 << 62;

/// All connections of a device, and the way to new ones.
pub(super) struct Muxer {
    guest_cid: u64,
    /// The context id that the guest had when it was saved, if it is another.
    former_cid: Option<u64>,
    path: PathBuf,
    epoll: Epoll,
    listener: ListeningSocket,
    /// Epoll watches the listener.
    listening: bool,
    /// Tells when the listener's file is gone, from the driver's start to then.
    watch: Option<FileWatch>,
    timer: TimerFd,
    /// The timer runs.
    ticking: bool,
    table: Table,
    clients: Clients,
    /// Answers to packets that belong to no connection.
    resets: VecDeque<Header>,
    /// Where the search for a free host port begins.
    next_port: u32,
    metrics: Arc<VsockMetrics>,
}

impl Muxer {
    pub(super) fn new(
        config: &VsockConfig,
        listener: ListeningSocket,
        metrics: Arc<VsockMetrics>,
    ) -> io::Result<Self> {
        let (epoll, timer) = (Epoll::new()?, TimerFd::new()?);
        let watched = EpollEvent::new(EventSet::IN, TIMER_TOKEN);
        epoll.ctl(ControlOperation::Add, timer.as_raw_fd(), watched)?;
        Ok(Self {
            guest_cid: config.guest_cid,
            former_cid: None,
            path: config.uds_path.clone(),
            epoll,
            listener,
            listening: false,
            watch: None,
            timer,
            ticking: false,
            table: Table::default(),
            clients: Clients::default(),
            resets: VecDeque::new(),
            next_port: from_host::FIRST_PORT,
            metrics,
        })
    }

    /// The descriptor that is readable when [`poll`](Self::poll) has something to do.
    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Begins to take clients in: those that came before have waited.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn start(&mut self) -> io::Result<()> {
        self.listen()?;
        match self.watch_file() {
            Ok(()) => self.check_file(),
            // It is a convenience, and the file may be gone.
            Err(error) => {
                debug!("vsock: cannot watch {}: {error}", self.path.display());
                self.warn_if_unreachable();
            }
        }
        Ok(())
    }

    fn watch_file(&mut self) -> io::Result<()> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => {
                let watch = FileWatch::new()?;
                let watched = EpollEvent::new(EventSet::IN, WATCH_TOKEN);
                self.epoll.ctl(ControlOperation::Add, watch.as_raw_fd(), watched)?;
                none.insert(watch)
            }
        };
        watch.start(&self.path)
    }

    fn stop_watching(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.stop();
        }
    }

    /// Something happened to the file of the listener.
    fn check_file(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.clear();
        }
        if self.warn_if_unreachable() {
            self.stop_watching();
        }
    }

    fn warn_if_unreachable(&self) -> bool {
        let gone = !self.listener.is_reachable();
        if gone {
            let path = self.path.display();
            warn!("vsock: {path} is not our socket any more: no host program can connect to the guest");
        }
        gone
    }

    /// Ends every connection; clients wait from now on.
    pub(super) fn stop(&mut self) {
        self.deafen();
        self.stop_watching();
        self.clients.clear();
        self.table = Table::default();
        self.resets.clear();
        self.former_cid = None;
        self.ticking = false;
        // A timer that is not armed cannot fail to be disarmed.
        let _ = self.timer.clear();
    }

    fn listen(&mut self) -> io::Result<()> {
        if !self.listening {
            let watched = EpollEvent::new(EventSet::IN, LISTENER_TOKEN);
            self.epoll.ctl(ControlOperation::Add, self.listener.as_raw_fd(), watched)?;
            self.listening = true;
        }
        Ok(())
    }

    fn deafen(&mut self) {
        if std::mem::take(&mut self.listening) {
            // It is watched, so it can be removed.
            let _ =
                self.epoll.ctl(ControlOperation::Delete, self.listener.as_raw_fd(), EpollEvent::default());
        }
    }

    /// Has deadlines looked at, and the device called, before long.
    pub(super) fn tick_later(&mut self) {
        if !self.ticking {
            self.ticking = self.timer.reset(TICK, None).is_ok();
        }
    }

    fn tick(&mut self) {
        // Makes it unreadable, too.
        let _ = self.timer.clear();
        self.ticking = false;
        let now = Instant::now();
        for index in self.table.indices() {
            let Some(connection) = self.table.get_mut(index) else { continue };
            if connection.deadline().is_some() {
                connection.expire(now);
                self.settle(index);
            }
        }
        // What kept the listener from accepting, a lack of descriptors, may have passed.
        if self.listen().is_err() {
            self.tick_later();
        }
    }

    /// Puts a connection where it belongs after something happened to it.
    fn settle(&mut self, index: u16) {
        let token = self.table.token(index);
        let Some(connection) = self.table.get_mut(index) else { return };
        if connection.renew_interest(&self.epoll, token).is_err() {
            // Without memory for it, the host would never wake us for this one.
            connection.kill();
        }
        if connection.is_over() {
            self.table.remove(index);
            return;
        }
        let (detached, ticks) = (connection.is_detached(), connection.deadline().is_some());
        if connection.has_work() {
            self.table.make_ready(index);
        }
        if detached {
            self.table.detach(index);
        }
        if ticks {
            self.tick_later();
        }
    }

    /// Takes in a connection, and has epoll watch its socket: newly (`Add`) or by another name (`Modify`).
    fn insert(&mut self, connection: Connection, operation: ControlOperation) {
        let Some(index) = self.table.insert(connection) else { return };
        let token = self.table.token(index);
        if let Some(connection) = self.table.get_mut(index)
            && connection.watch(&self.epoll, token, operation).is_err()
        {
            connection.kill();
        }
        self.metrics.connections.increment();
        self.settle(index);
    }
}
