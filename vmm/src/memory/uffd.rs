//! Guest RAM whose pages another process gives, each when it is first touched (userfaultfd): our own `rvmm serve-memory`,
//! or one that was written for Firecracker.
//!
//! Who touches a page that is not there waits until that process has given it: the guest, KVM, and rvmm itself when it
//! reads a queue of a device or writes the memory to a snapshot. A page that is not there is therefore no page of zeroes.
//! Only when the process ends, which closes its connection, is it clear that the page never comes, and that the VM cannot
//! go on: [`Pager::lost`] is for the event loop, and if the main thread itself waits for a page, `give_up` is called.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use devices::{GuestMemory, unix_socket};
use vm_memory::GuestMemoryBackend as _;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

use super::handshake::Part;
use super::userfault::Userfault;
use super::{HugePages, MemoryError, create};
use crate::seccomp::Filter;

/// The longest that the process which listens on the socket is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a VM may take to end when nobody serves its memory any more.
const GRACE: Duration = Duration::from_secs(5);
/// How long apart it is looked whether something has come about.
const INTERVAL: Duration = Duration::from_micros(50);
/// Bytes of the stack of the thread that watches.
const STACK: usize = 64 << 10;

/// Why a VM ends whose memory is not served any more.
pub const LOST: &str =
    "the process that served the guest's memory has gone or refused to; its own messages say why";

/// Why no other process serves guest memory.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// The host gives no userfaultfd.
    #[error("cannot have another process serve guest memory{mend}")]
    Userfault {
        /// What to do about it, or nothing.
        mend: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Nobody is there.
    #[error("cannot connect to the process that serves guest memory at {}{mend}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What to do about it, or nothing.
        mend: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It went before it was told what to serve.
    #[error("the process that listens on {} does not take guest memory to serve", path.display())]
    Send {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It does not read what it is told.
    #[error("the process that listens on {} took no guest memory to serve in {} s", path.display(), PATIENCE.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// The host has no thread or descriptor left.
    #[error("cannot watch the process that serves guest memory")]
    Watch(#[source] io::Error),
}

/// What keeps memory served: dropping it lets the other process go, so it lives as long as the memory does.
#[derive(Debug)]
pub struct Pager {
    connection: UnixStream,
    lost: EventFd,
    over: Arc<AtomicBool>,
    _uffd: Userfault,
}

impl Pager {
    /// Readable, for good, when the process that serves the memory has gone: [`LOST`].
    pub fn lost(&self) -> RawFd {
        self.lost.as_raw_fd()
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread that watches. Fails only if the other side has gone, and then it is awake.
        let _ = self.connection.shutdown(std::net::Shutdown::Both);
    }
}

/// Guest RAM of `mib` MiB whose pages the process that listens on `socket` gives. Its dirty bitmap, if it is to have one,
/// is clear.
///
/// `give_up` is called in a thread of its own, with [`LOST`], if the [`Pager`] is still there some seconds after the
/// process has gone; it has to end this one, for whoever waits for a page waits for ever. `filter` is for that thread.
///
/// # Errors
/// [`MemoryError`] when the host has no room, [`PagerError`] when nobody serves, within about five seconds.
pub fn serve_by(
    mib: u64,
    socket: &Path,
    huge_pages: HugePages,
    track_dirty: bool,
    filter: Option<&Filter>,
    give_up: fn(&str),
) -> Result<(GuestMemory, Pager), MemoryError> {
    let memory = create(mib, huge_pages, track_dirty)?;
    let uffd = userfault(&memory)?;
    let connection = connect(socket)?;
    let failed = |source| PagerError::Send { path: socket.to_owned(), source };
    let message = serde_json::to_vec(&Part::all(&memory, huge_pages))
        .map_err(|error| failed(io::Error::other(error)))?;
    // It is far less than fits the socket, so all of it is sent, or nothing.
    connection
        .send_with_fd(&message[..], uffd.as_raw_fd())
        .map_err(|error| failed(io::Error::from_raw_os_error(error.errno())))?;
    wait_taken(&connection, socket)?;
    let pager = watch(connection, uffd, filter.cloned(), give_up).map_err(PagerError::Watch)?;
    Ok((memory, pager))
}

/// A userfaultfd for all of `memory`.
fn userfault(memory: &GuestMemory) -> Result<Userfault, PagerError> {
    let registered = Userfault::create().and_then(|uffd| {
        memory.iter().try_for_each(|region| uffd.register(region))?;
        Ok(uffd)
    });
    registered.map_err(|source| {
        let mend = match source.raw_os_error() {
            Some(libc::EPERM) => {
                "; allow this user to with `sysctl vm.unprivileged_userfaultfd=1`, or give it /dev/userfaultfd"
            }
            Some(libc::ENOSYS) => "; the host's kernel has no userfaultfd",
            _ => "",
        };
        PagerError::Userfault { mend, source }
    })
}

/// Connects to `socket`, and waits for one that does not keep up.
fn connect(socket: &Path) -> Result<UnixStream, PagerError> {
    let start = Instant::now();
    loop {
        let source = match unix_socket::connect(socket) {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if source.raw_os_error() == Some(libc::EAGAIN) && start.elapsed() < PATIENCE {
            thread::sleep(INTERVAL);
            continue;
        }
        let mend = match source.kind() {
            io::ErrorKind::NotFound => "; start that process first",
            io::ErrorKind::ConnectionRefused => ", where nobody listens; start that process first",
            io::ErrorKind::WouldBlock => ", which accepts nobody; end that process and start it again",
            _ => "",
        };
        return Err(PagerError::Connect { path: socket.to_owned(), mend, source });
    }
}

/// Waits until the other process has read all that was sent.
fn wait_taken(connection: &UnixStream, socket: &Path) -> Result<(), PagerError> {
    let path = || socket.to_owned();
    let failed = |source| PagerError::Send { path: path(), source };
    let hangup = hangup(connection).map_err(failed)?;
    let start = Instant::now();
    loop {
        let waits = unread(connection).map_err(failed)? > 0;
        // What was thrown away unread is not waiting either.
        if hangup.wait(0, &mut [EpollEvent::default()]).map_err(failed)? > 0 {
            return Err(failed(io::ErrorKind::ConnectionReset.into()));
        }
        if !waits {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(PagerError::Silent { path: path() });
        }
        thread::sleep(INTERVAL);
    }
}

/// Bytes that the other side has not read yet, with what the kernel needs to keep them.
#[expect(unsafe_code, reason = "SIOCOUTQ has no safe wrapper")]
fn unread(connection: &UnixStream) -> io::Result<libc::c_int> {
    let mut count = 0;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes an int, which `count` is.
    let result = unsafe { libc::ioctl(connection.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(count) }
}

/// Something happens here when the other side closes `connection`, and at nothing else.
fn hangup(connection: &UnixStream) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    let event = EpollEvent::new(EventSet::READ_HANG_UP, 0);
    epoll.ctl(ControlOperation::Add, connection.as_raw_fd(), event)?;
    Ok(epoll)
}

/// Has a thread wait for the end of `connection`.
fn watch(
    connection: UnixStream,
    uffd: Userfault,
    filter: Option<Filter>,
    give_up: fn(&str),
) -> io::Result<Pager> {
    let lost = EventFd::new(EFD_NONBLOCK)?;
    let over = Arc::new(AtomicBool::new(false));
    let pager = Pager { connection, lost: lost.try_clone()?, over: over.clone(), _uffd: uffd };
    let hangup = hangup(&pager.connection)?;
    thread::Builder::new().name("pager".to_owned()).stack_size(STACK).spawn(move || {
        Filter::confine(filter.as_ref());
        // Interrupted by no signal: they are blocked in this thread, or it would look again.
        while hangup.wait(-1, &mut [EpollEvent::default()]).is_err() {}
        if over.load(Ordering::Acquire) {
            return;
        }
        // Fails only when the counter is full, and then the reader is awake.
        let _ = lost.write(1);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            thread::sleep(Duration::from_millis(10));
            if over.load(Ordering::Acquire) {
                return;
            }
        }
        give_up(LOST);
    })?;
    Ok(pager)
}

#[cfg(test)]
mod tests;
