//! The process that serves the memory of a snapshot to VMs, page by page: the other side of [`memory::serve_by`], and of
//! Firecracker's memory backend `Uffd`.
//!
//! One thread, one epoll loop: the listening socket, a connection and a userfaultfd for each VM. A VM that waits for a
//! page comes before the working set of any. What a VM says is not trusted: one that says what cannot be is let go, and
//! the others are served on. Its userfaultfd can only add pages to the address space that it was made in.
//!
//! [`memory::serve_by`]: crate::memory::serve_by

mod arriving;
#[cfg(feature = "test-harness")]
pub mod harness;
mod image;
mod report;
mod served;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use devices::unix_socket::{ListeningSocket, SocketError, SocketFile};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use self::arriving::Arriving;
use self::served::{Plan, Served};
use crate::memory::Used;
use crate::signals::{Signal, Signals};
use crate::snapshot::{SnapshotError, working_set};

pub use image::Image;
pub use report::Report;

/// VMs that are served at a time. Each takes two of 1024 descriptors.
const MAX_VMS: usize = 400;
/// The longest that a VM may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it did.
const ROUND: Duration = Duration::from_secs(1);
/// After how many rounds of the loop what nobody waits for has its turn, if there is always something that somebody does.
const ROUNDS: u32 = 16;

/// What the loop knows the listening socket, signals and VMs by. A VM has two numbers from `FIRST` on, an even one for its
/// connection and an odd one for its userfaultfd.
const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const FIRST: u64 = 2;

/// Why memory is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There can be no socket.
    #[error("{}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: SocketError,
    },
    /// A working set that is none.
    #[error(transparent)]
    WorkingSet(#[from] SnapshotError),
    /// The host refuses something else.
    #[error("cannot {what}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// How memory is served.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The socket that VMs connect to.
    pub socket: PathBuf,
    /// End with the last VM.
    pub once: bool,
    /// The working set.
    pub working_set: WorkingSet,
}

/// What is done about the working set.
#[derive(Clone, Debug, Default)]
pub enum WorkingSet {
    /// Nothing.
    #[default]
    None,
    /// What is recorded in this folder is sent before it is asked for, if there is such a record.
    Send(PathBuf),
    /// What the first VM asks for is recorded in this folder when it ends.
    Record(PathBuf),
}

/// A VM.
#[derive(Debug)]
struct Client {
    connection: UnixStream,
    since: Instant,
    pid: Option<u32>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// It has not said all yet.
    Arriving(Arriving),
    Served(Box<Served>),
}

/// The process's state.
struct Server {
    epoll: Epoll,
    listener: UnixListener,
    _file: SocketFile,
    signals: Signals,
    /// There is room for further VMs.
    listens: bool,
    plan: Plan,
    record: Option<PathBuf>,
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// A VM has sent its memory.
    has_served: bool,
    /// Rounds of the loop so far.
    round: u32,
}

/// Serves `image` until a signal ends it, or the last VM does if that is what `options` say. `ended` is told of each VM.
///
/// # Errors
/// [`ServeError`]; what goes wrong with one VM is in its [`Report`].
pub fn serve(image: Image, options: &Options, mut ended: impl FnMut(&Report)) -> Result<(), ServeError> {
    let mut server = Server::new(image, options)?;
    loop {
        let timeout = server.timeout();
        if server.turn(timeout, &mut ended)?.is_break() {
            return Ok(());
        }
        if options.once && server.has_served && server.clients.is_empty() {
            return Ok(());
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Host { what, source }
}

impl Server {
    fn new(image: Image, options: &Options) -> Result<Self, ServeError> {
        let (working_set, record) = match &options.working_set {
            WorkingSet::None => (Vec::new(), None),
            WorkingSet::Record(dir) => (Vec::new(), Some(dir.clone())),
            // What is there more than once is looked at once.
            WorkingSet::Send(dir) => (Used::first(working_set::read(dir, image.len())?, image.len()), None),
        };
        let plan = Plan { image: Rc::new(image), working_set: working_set.into() };
        let socket = &options.socket;
        let signals = Signals::block().map_err(failed("handle signals"))?;
        let (listener, file) = ListeningSocket::bind(socket)
            .map_err(|source| ServeError::Socket { path: socket.clone(), source })?
            .into_parts();
        let epoll = Epoll::new().map_err(failed("make the event loop"))?;
        let server = Self {
            epoll,
            listener,
            _file: file,
            signals,
            listens: true,
            plan,
            record,
            clients: BTreeMap::new(),
            next: FIRST,
            has_served: false,
            round: 0,
        };
        server
            .watch(server.listener.as_raw_fd(), LISTENER)
            .and_then(|()| server.watch(server.signals.as_raw_fd(), SIGNALS))
            .map_err(failed("make the event loop"))?;
        Ok(server)
    }

    /// Waits up to `timeout` milliseconds, or for ever if that is -1, and does what there is to do. Breaks when a signal asks
    /// for the end.
    fn turn(&mut self, timeout: i32, ended: &mut dyn FnMut(&Report)) -> Result<ControlFlow<()>, ServeError> {
        let mut events = [EpollEvent::default(); 64];
        let count = match self.epoll.wait(timeout, &mut events) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(failed("wait for VMs")(error));
            }
            other => other.unwrap_or(0),
        };
        for event in events.iter().take(count) {
            match event.data() {
                LISTENER => self.accept().map_err(failed("accept VMs"))?,
                SIGNALS => {
                    if self.is_terminated() {
                        self.clients.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| {
                            self.end(id, None, ended);
                        });
                        return Ok(ControlFlow::Break(()));
                    }
                }
                number => self.process(number & !1, number & 1 == 0, event.event_set(), ended),
            }
        }
        self.round = self.round.wrapping_add(1);
        if count == 0 || self.round.is_multiple_of(ROUNDS) {
            self.go_on(ended);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether a signal asks for the end.
    fn is_terminated(&self) -> bool {
        match self.signals.read() {
            Some(Signal::Terminate(_)) => true,
            Some(Signal::Stop) => {
                crate::signals::stop_process();
                false
            }
            Some(Signal::Continue | Signal::Resize) | None => false,
        }
    }

    /// Milliseconds until there is something to do although nothing happens.
    fn timeout(&self) -> i32 {
        let due = |client: &Client| match &client.phase {
            Phase::Arriving(_) => ROUND.as_millis() as i32,
            Phase::Served(served) if served.sends_ahead() => 0,
            Phase::Served(served) if served.is_behind() => 1,
            Phase::Served(_) => -1,
        };
        // -1, for ever, is the largest of unsigned numbers.
        self.clients.values().map(due).min_by_key(|due| due.cast_unsigned()).unwrap_or(-1)
    }

    fn accept(&mut self) -> io::Result<()> {
        if self.clients.len() == MAX_VMS {
            return self.stop_listening();
        }
        match self.listener.accept() {
            Ok((connection, _)) => {
                connection.set_nonblocking(true)?;
                let id = self.next;
                self.next += 2;
                self.watch(connection.as_raw_fd(), id)?;
                let pid = arriving::peer(&connection);
                let phase = Phase::Arriving(Arriving::default());
                self.clients.insert(id, Client { connection, since: Instant::now(), pid, phase });
                Ok(())
            }
            // No descriptors left: when a VM ends there are some.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.stop_listening()
            }
            // It has gone already.
            Err(_) => Ok(()),
        }
    }

    fn stop_listening(&mut self) -> io::Result<()> {
        if self.clients.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        log::warn!("no further VMs are served until one ends");
        self.listens = false;
        self.forget(self.listener.as_raw_fd());
        Ok(())
    }

    fn watch(&self, fd: RawFd, number: u64) -> io::Result<()> {
        self.epoll.ctl(
            ControlOperation::Add,
            fd,
            EpollEvent::new(EventSet::IN | EventSet::READ_HANG_UP, number),
        )
    }

    /// Closing is not enough where another process has the same file description.
    fn forget(&self, fd: RawFd) {
        if let Err(error) = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default()) {
            log::warn!("a descriptor is still watched: {error}");
        }
    }

    /// Sees to what happened to a VM.
    fn process(&mut self, id: u64, on_connection: bool, events: EventSet, ended: &mut dyn FnMut(&Report)) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let over = match &mut client.phase {
            Phase::Arriving(arriving) => match arriving.receive(&client.connection, self.plan.image.len()) {
                Ok(None) => Ok(false),
                Ok(Some((uffd, parts))) => {
                    let record = self.record.is_some() && !self.has_served;
                    self.has_served = true;
                    let served = Box::new(Served::new(uffd, parts, self.plan.clone(), record));
                    let fd = served.uffd().as_raw_fd();
                    client.phase = Phase::Served(served);
                    self.watch(fd, id | 1).map(|()| false)
                }
                Err(error) => Err(error),
            },
            // It says nothing more; what it does say is not read, so it is not looked at again.
            Phase::Served(_) if on_connection => Ok(true),
            // The other side has made reading it wait.
            Phase::Served(_) if events.contains(EventSet::ERROR) => {
                Err(served::strange("a userfaultfd that waits"))
            }
            Phase::Served(served) => served.serve().map(|()| false),
        };
        self.settle(id, over, ended);
    }

    /// Does what is due although nothing happened.
    fn go_on(&mut self, ended: &mut dyn FnMut(&Report)) {
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let over = match &mut client.phase {
                Phase::Arriving(_) if client.since.elapsed() > PATIENCE => Err(arriving::silent()),
                Phase::Served(served) if served.is_behind() || served.sends_ahead() => {
                    served.serve().map(|()| false)
                }
                _ => Ok(false),
            };
            self.settle(id, over, ended);
        }
    }

    fn settle(&mut self, id: u64, over: io::Result<bool>, ended: &mut dyn FnMut(&Report)) {
        match over {
            Ok(false) => {}
            Ok(true) => self.end(id, None, ended),
            // Its process has gone, which the connection is about to say.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => self.end(id, None, ended),
            Err(error) => self.end(id, Some(error), ended),
        }
    }

    /// Lets a VM go.
    fn end(&mut self, id: u64, error: Option<io::Error>, ended: &mut dyn FnMut(&Report)) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.forget(client.connection.as_raw_fd());
        // Somebody who looked whether the socket is served, and no VM.
        let was_there = !matches!(&client.phase, Phase::Arriving(arriving) if arriving.has_said_nothing());
        let mut report = Report::new(client.pid, client.since.elapsed());
        report.error = error.map(|error| error.to_string());
        if let Phase::Served(mut served) = client.phase {
            self.forget(served.uffd().as_raw_fd());
            report.count(served.counts());
            if let Some((dir, ranges)) = self.record.as_ref().zip(served.take_recorded()) {
                match working_set::write(dir, &ranges) {
                    Ok(()) => report.recorded = Some(ranges.len()),
                    Err(error) => {
                        log::error!("cannot write {}: {error}", dir.join(working_set::FILE).display());
                    }
                }
            }
        }
        if !self.listens && self.watch(self.listener.as_raw_fd(), LISTENER).is_ok() {
            self.listens = true;
        }
        if was_there {
            ended(&report);
        }
    }
}

#[cfg(test)]
mod tests;
