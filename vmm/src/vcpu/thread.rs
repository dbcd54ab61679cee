//! The thread of a vCPU. It outlives the vCPU, so that a guest that boots again has the threads that it had: new ones would
//! inherit the filter of system calls of the main thread.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use vmm_sys_util::signal::Killable as _;

use super::kick_signal;
use crate::thread::{self, ThreadKind};

/// Runs a vCPU to its end.
type Work = Box<dyn FnOnce() + Send>;

/// A thread that runs vCPUs, one after the other.
pub struct VcpuThread {
    thread: JoinHandle<()>,
    work: Sender<Work>,
}

impl VcpuThread {
    /// A thread for the vCPU `id`, which does `first` at once.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn spawn(id: u32, first: Work) -> io::Result<Self> {
        let (sender, work) = mpsc::channel::<Work>();
        let thread = thread::spawn(ThreadKind::Vcpu(id), move || {
            first();
            for work in work {
                work();
            }
        })?;
        Ok(Self { thread, work: sender })
    }

    /// Has the idle thread do `work`.
    pub(super) fn run(&self, work: Work) -> io::Result<()> {
        self.work.send(work).map_err(|_| io::Error::other("the vCPU's thread has ended"))
    }

    /// Gets its vCPU out of `KVM_RUN`.
    pub(super) fn kick(&self) {
        if let Err(error) = self.thread.kill(kick_signal()) {
            log::error!("a vCPU cannot be kicked: {error}");
        }
    }

    /// Whether it has panicked.
    pub(super) fn is_gone(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the idle thread.
    pub fn join(self) {
        drop(self.work);
        if self.thread.join().is_err() {
            log::error!("a vCPU's thread panicked");
        }
    }
}
