//! Processes in the background that are started one after the other, without one waiting for the guest of the one before.

use std::io;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::detach::{self, Report, Side, Started};
use crate::name::process::Process;

/// How long rvmm has to end, when one VM could not be started and the others go with it.
const ENDING: Duration = Duration::from_secs(10);

/// A VM whose guest runs.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) began: Instant,
    /// From before its process was made to its guest running.
    pub(super) took: Duration,
}

/// Why not all VMs run.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(in crate::commands) struct FleetError {
    message: String,
    /// No VM runs any more. One that could not be ended still uses its disks.
    pub(in crate::commands) have_all_ended: bool,
}

/// One that is only coming.
struct Coming {
    id: String,
    began: Instant,
    process: Started,
}

/// The VMs that were started.
pub(super) struct Fleet {
    epoll: Epoll,
    coming: Vec<Coming>,
    running: Vec<Member>,
    /// How many may be coming at a time.
    at_once: usize,
}

impl Fleet {
    /// # Errors
    /// What the host said.
    pub(super) fn new() -> io::Result<Self> {
        let at_once = thread::available_parallelism().map_or(1, Into::into);
        Ok(Self { epoll: Epoll::new()?, coming: Vec::new(), running: Vec::new(), at_once })
    }

    /// Starts a process for the VM `id`, and returns in both: in that of the VM with who waits to hear from it. There
    /// nothing of this fleet may be used, or dropped, any more: others have the numbers of its descriptors.
    ///
    /// # Errors
    /// Which VM failed, and why; the others have ended then, as far as they could be ended.
    pub(super) fn start(&mut self, id: &str) -> Result<Option<Report>, FleetError> {
        self.gather(self.at_once.saturating_sub(1))?;
        let began = Instant::now();
        let failed = |error: io::Error| format!("{id}: cannot start a process: {error}");
        let process = match detach::fork().map_err(failed) {
            Ok(Side::Background(report)) => return Ok(Some(report)),
            Ok(Side::Foreground(process)) => process,
            Err(error) => return Err(self.end(error)),
        };
        let fd = process.as_raw_fd();
        self.coming.push(Coming { id: id.to_owned(), began, process });
        let event = EpollEvent::new(EventSet::IN, u64::try_from(fd).unwrap_or_default());
        let watched = self.epoll.ctl(ControlOperation::Add, fd, event);
        watched.map_err(|error| self.end(failed(error))).map(|()| None)
    }

    /// Waits until the guests of all run; in the order in which they were started.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub(super) fn all(mut self) -> Result<Vec<Member>, FleetError> {
        self.gather(0)?;
        self.running.sort_by_key(|member| member.began);
        Ok(self.running)
    }

    /// Waits until no more than `left` are coming.
    fn gather(&mut self, left: usize) -> Result<(), FleetError> {
        while self.coming.len() > left {
            let mut events = [EpollEvent::default(); 8];
            match self.epoll.wait(-1, &mut events) {
                Ok(count) => {
                    for event in events.iter().take(count) {
                        self.hear(event.data())?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.end(format!("cannot wait for the VMs: {error}"))),
            }
        }
        Ok(())
    }

    /// One of those that are coming has something to tell.
    fn hear(&mut self, fd: u64) -> Result<(), FleetError> {
        let is_it = |coming: &Coming| u64::try_from(coming.process.as_raw_fd()).is_ok_and(|its| its == fd);
        let Some(at) = self.coming.iter().position(is_it) else { return Ok(()) };
        let Coming { id, began, process } = self.coming.swap_remove(at);
        let took = began.elapsed();
        // A process that is only being made may have the other end's twin, and closing ours would not end the watch.
        let _ = self.epoll.ctl(ControlOperation::Delete, process.as_raw_fd(), EpollEvent::default());
        let pid = process.pid;
        match process.wait() {
            Ok(_) => {
                self.running.push(Member { id, pid, began, took });
                Ok(())
            }
            Err(error) => Err(self.end(format!("{id}: {error}"))),
        }
    }

    /// Ends all, because of `error`, which is told with what cannot be ended.
    fn end(&mut self, error: String) -> FleetError {
        for Coming { id, began, process } in std::mem::take(&mut self.coming) {
            let pid = process.pid;
            // One that fails as well ends by itself.
            if process.wait().is_ok() {
                self.running.push(Member { id, pid, began, took: began.elapsed() });
            }
        }
        let running = std::mem::take(&mut self.running);
        let count = running.len();
        // They are children of this process: their numbers stay theirs until it ends.
        let processes: Vec<_> = running.into_iter().map(|vm| (vm.id, Process::open(vm.pid))).collect();
        let asked = |process: &io::Result<Process>| {
            process.as_ref().is_ok_and(|process| process.signal(libc::SIGTERM).is_ok())
        };
        let (asked, not_asked): (Vec<_>, Vec<_>) = processes.into_iter().partition(|(_, vm)| asked(vm));
        let deadline = Instant::now() + ENDING;
        let ends = |process: &io::Result<Process>| {
            let left = deadline.saturating_duration_since(Instant::now());
            process.as_ref().is_ok_and(|process| process.wait(left).unwrap_or(false))
        };
        let stay = asked.into_iter().filter(|(_, vm)| !ends(vm)).chain(not_asked);
        let stay: Vec<String> = stay.map(|(id, _)| id).collect();
        let message = match (count, stay.as_slice()) {
            (0, _) => error,
            (count, []) => format!("{error}; the {count} that ran before are ended again"),
            (_, stay) => {
                format!("{error}; {} cannot be ended: see rvmm kill; copies of disks stay", stay.join(", "))
            }
        };
        FleetError { message, have_all_ended: stay.is_empty() }
    }
}
