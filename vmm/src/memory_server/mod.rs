//! The process that serves the memory of a snapshot to VMs, page by page: the other side of [`memory::serve_by`], and of
//! Firecracker's memory backend `Uffd`.
//!
//! The main thread accepts connections and handles signals. Each VM has a thread of its own, which reads what the VM sends
//! and gives it pages: a VM that makes a call on its descriptors block, or fail, stops nobody else. What a VM sends is not
//! trusted. Its userfaultfd can only add pages to the address space that it was made in.
//!
//! [`memory::serve_by`]: crate::memory::serve_by

mod arriving;
#[cfg(feature = "test-harness")]
pub mod harness;
mod image;
mod report;
mod served;
mod session;
mod slots;

use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use devices::unix_socket::{Descriptors, ListeningSocket, SocketError, SocketFile};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;

use self::served::Plan;
use self::session::Session;
use self::slots::{MAX_VMS, Slots};
use crate::memory::Used;
use crate::signals::{Signal, Signals};
use crate::snapshot::{SnapshotError, working_set};
use crate::thread::{self, ThreadKind};

pub use image::Image;
pub use report::Report;

/// How long the server waits at its end for the reports of VMs. A thread that hangs in a system call has none.
const LAST_REPORTS: Duration = Duration::from_secs(1);
/// How soon it is looked again whether there is room for a further VM.
const RETRY: Duration = Duration::from_secs(1);

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

/// What the threads of VMs share with the main thread.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    /// Where the working set of the first VM is recorded.
    record: Option<PathBuf>,
    /// A VM has sent its memory.
    has_served: AtomicBool,
    slots: Slots,
    /// Readable once the server ends. Nobody reads it, so every thread sees it.
    stop: OwnedFd,
    /// Readable when a VM has ended, for the main thread.
    changed: OwnedFd,
}

impl Shared {
    /// Wakes up the main thread.
    fn notify(&self) {
        set(&self.changed);
    }
}

/// Makes an eventfd readable. That it is full, the only error, means that it is readable.
fn set(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// The main thread's state.
struct Server {
    /// Closed when the process ends: closing it closes what clients have sent that nobody accepted, which can block.
    listener: ManuallyDrop<UnixListener>,
    _file: SocketFile,
    signals: Signals,
    shared: Arc<Shared>,
    /// There may be room for further VMs.
    listens: bool,
    /// VMs that have not ended.
    active: usize,
    reports: Receiver<Option<Report>>,
    /// For the threads.
    sender: Sender<Option<Report>>,
}

/// Serves `image` until a signal ends it, or the last VM does if that is what `options` say. `ended` gets the report of each VM.
///
/// # Errors
/// [`ServeError`]; what goes wrong with one VM is in its [`Report`].
pub fn serve(image: Image, options: &Options, ended: impl FnMut(&Report)) -> Result<(), ServeError> {
    Server::new(image, options)?.run(options.once, ended)
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Host { what, source }
}

impl Server {
    fn new(image: Image, options: &Options) -> Result<Self, ServeError> {
        let (working_set, record) = match &options.working_set {
            WorkingSet::None => (Vec::new(), None),
            WorkingSet::Record(dir) => (Vec::new(), Some(dir.clone())),
            // A range that is there more than once is sent once.
            WorkingSet::Send(dir) => (Used::first(working_set::read(dir, image.len())?, image.len()), None),
        };
        let plan = Plan { image: Arc::new(image), working_set: working_set.into() };
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| failed("make the event loop")(error.into()))
        };
        let shared = Shared {
            plan,
            record,
            has_served: AtomicBool::new(false),
            slots: Slots::default(),
            stop: event()?,
            changed: event()?,
        };
        let socket = &options.socket;
        let signals = Signals::block().map_err(failed("handle signals"))?;
        let (listener, file) = ListeningSocket::bind(socket, Descriptors::Accept)
            .map_err(|source| ServeError::Socket { path: socket.clone(), source })?
            .into_parts();
        let (sender, reports) = mpsc::channel();
        let shared = Arc::new(shared);
        let listener = ManuallyDrop::new(listener);
        Ok(Self { listener, _file: file, signals, shared, listens: true, active: 0, reports, sender })
    }

    fn run(mut self, once: bool, mut ended: impl FnMut(&Report)) -> Result<(), ServeError> {
        loop {
            let [stopped, signalled, changed, connected] = self.wait().map_err(failed("wait for VMs"))?;
            if stopped || (signalled && self.is_terminated()) {
                break;
            }
            if changed {
                let _ = rustix::io::read(&self.shared.changed, &mut [0; 8]);
                while let Ok(report) = self.reports.try_recv() {
                    self.count_end(report.as_ref(), &mut ended);
                }
                if once && self.active == 0 && self.shared.has_served.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            // Without room, it is tried again when a VM has ended, or after a while.
            self.listens = !connected || self.accept();
        }
        set(&self.shared.stop);
        let end = Instant::now() + LAST_REPORTS;
        while self.active > 0 {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(report) = self.reports.recv_timeout(left) else {
                log::warn!("{} VMs have no report: their threads hang", self.active);
                break;
            };
            self.count_end(report.as_ref(), &mut ended);
        }
        Ok(())
    }

    fn count_end(&mut self, report: Option<&Report>, ended: &mut impl FnMut(&Report)) {
        self.active -= 1;
        if let Some(report) = report {
            ended(report);
        }
    }

    /// Waits for the end, a signal, a change of a VM, a connection, and says which there are.
    fn wait(&self) -> io::Result<[bool; 4]> {
        let mut fds = [
            PollFd::new(&self.shared.stop, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.shared.changed, PollFlags::IN),
            PollFd::new(&*self.listener, if self.listens { PollFlags::IN } else { PollFlags::empty() }),
        ];
        wait_for(&mut fds, (!self.listens).then_some(RETRY))?;
        Ok(fds.map(|fd| !fd.revents().is_empty()))
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

    /// Accepts a VM, and says whether there may be room for another one.
    fn accept(&mut self) -> bool {
        if self.shared.slots.count() >= MAX_VMS {
            return false;
        }
        match self.listener.accept() {
            Ok((connection, _)) => {
                self.start(connection);
                true
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                log::warn!("no further VM is served for the moment: {error}");
                false
            }
            // It has gone already.
            Err(_) => true,
        }
    }

    /// Has a thread serve the VM that has connected.
    fn start(&mut self, connection: UnixStream) {
        let pid = arriving::peer(&connection);
        if connection.set_nonblocking(true).is_err() {
            return;
        }
        let slot = slots::take(&self.shared, pid);
        let session = Session::new(connection, pid, Arc::clone(&self.shared), slot);
        let sender = self.sender.clone();
        match thread::spawn(ThreadKind::ServedVm, move || session.run(&sender)) {
            Ok(_) => self.active += 1,
            Err(error) => log::error!("a VM is not served: {error}"),
        }
    }
}

/// Waits for events, up to `timeout`. None after a signal's handler ran, or the timeout.
fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    // Longer than the largest time that there is: without end.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(fds, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}

#[cfg(test)]
mod tests;
