//! The thread of a VM: reads its handshake, then gives it pages until it ends.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::arriving::{self, Arriving};
use super::served::{self, Served};
use super::slots::Slot;
use super::{Report, Shared, wait_for};
use crate::snapshot::working_set;

/// The longest that a VM may take to send what memory it has.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a page is given again that a VM did not take.
const AGAIN: Duration = Duration::from_millis(1);

/// A VM that is connected.
#[derive(Debug)]
pub(super) struct Session {
    connection: UnixStream,
    pid: Option<u32>,
    since: Instant,
    shared: Arc<Shared>,
    /// Is free after all else is closed, as closing can block.
    slot: Slot,
}

impl Session {
    pub(super) fn new(connection: UnixStream, pid: Option<u32>, shared: Arc<Shared>, slot: Slot) -> Self {
        Self { connection, pid, since: Instant::now(), shared, slot }
    }

    /// Serves the VM and sends its report; none for a client that connected and sent nothing.
    pub(super) fn run(self, reports: &Sender<Option<Report>>) {
        if self.slot.is_refused {
            log::debug!("process {:?} has too many connections; a further one is closed", self.pid);
            let _ = reports.send(None);
            self.shared.notify();
            // In this thread, as it can block.
            return;
        }
        let mut arriving = Arriving::default();
        let mut served = None;
        let result = self.serve(&mut arriving, &mut served);
        let mut report = Report::new(self.pid, self.since.elapsed());
        report.error = match result {
            Ok(()) => None,
            // The process has gone, as the connection is about to show.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(served) = &mut served {
            report.count(served.counts());
            self.record(served, &mut report);
        }
        let was_there = served.is_some() || !arriving.has_said_nothing();
        // Fails only when the server has ended.
        let _ = reports.send(was_there.then_some(report));
        self.shared.notify();
        // The last close of a descriptor of the VM can block.
        drop((arriving, served));
        let Self { connection, slot, .. } = self;
        drop(connection);
        drop(slot);
    }

    /// Serves until the VM closes its connection, or the server ends.
    ///
    /// # Errors
    /// The VM does what it should not, or the host fails.
    fn serve(&self, arriving: &mut Arriving, slot: &mut Option<Served>) -> io::Result<()> {
        let deadline = self.since + PATIENCE;
        let (uffd, parts) = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(arriving::silent());
            }
            let [stopped, sent] = self.wait(Some(left))?;
            if stopped {
                return Ok(());
            }
            if sent && let Some(all) = arriving.receive(&self.connection, self.shared.plan.image.len())? {
                break all;
            }
        };
        let is_first = !self.shared.has_served.swap(true, Ordering::Relaxed);
        let record = self.shared.record.is_some() && is_first;
        let served = slot.insert(Served::new(uffd, parts, self.shared.plan.clone(), record));
        loop {
            let timeout = match () {
                () if served.sends_ahead() => Some(Duration::ZERO),
                () if served.is_behind() => Some(AGAIN),
                () => None,
            };
            let mut fds = [
                PollFd::new(&self.shared.stop, PollFlags::IN),
                PollFd::new(&self.connection, PollFlags::IN | PollFlags::RDHUP),
                PollFd::new(served.uffd(), PollFlags::IN),
            ];
            wait_for(&mut fds, timeout)?;
            let [stopped, connection, faults] = fds.map(|fd| fd.revents());
            // A VM sends nothing more. What it does send is not read.
            if !stopped.is_empty() || !connection.is_empty() {
                return Ok(());
            }
            // What poll(2) reports of a userfaultfd that is not O_NONBLOCK any more.
            if faults.contains(PollFlags::ERR) {
                return Err(served::strange("a userfaultfd that waits"));
            }
            served.serve()?;
        }
    }

    /// Waits for the server's end and for what the VM sends, and says which there is.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<[bool; 2]> {
        let mut fds = [
            PollFd::new(&self.shared.stop, PollFlags::IN),
            PollFd::new(&self.connection, PollFlags::IN | PollFlags::RDHUP),
        ];
        wait_for(&mut fds, timeout)?;
        Ok(fds.map(|fd| !fd.revents().is_empty()))
    }

    /// Writes the working set, if this VM's is recorded.
    fn record(&self, served: &mut Served, report: &mut Report) {
        let Some((dir, ranges)) = self.shared.record.as_ref().zip(served.take_recorded()) else { return };
        match working_set::write(dir, &ranges) {
            Ok(()) => report.recorded = Some(ranges.len()),
            Err(error) => log::error!("cannot write {}: {error}", dir.join(working_set::FILE).display()),
        }
    }
}
