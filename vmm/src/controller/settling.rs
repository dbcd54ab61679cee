//! The first moment of a guest, in which it has the host to itself: what nobody waits for is done after it.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::Controller;
use crate::event_loop::{EventLoop, Wake};
use crate::kvm::host::{self, KvmServer};
use crate::thread;
use crate::vcpu::Begin;

/// How long a guest runs by itself before what nobody waits for is done beside it: at least and at most.
const MOMENT: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(250);

/// In between it is so many times what making the VM took: on a slow host a guest begins slowly, too.
const MAKINGS: u32 = 4;

/// No Linux kernel is smaller than this many bytes.
const SMALLEST_LINUX: u64 = 1 << 20;

/// Whether the guest has run for a moment. One that resets all the time does not put that off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Settling {
    /// It was not started.
    NotStarted,
    /// It will have by then.
    At(Instant),
    /// It has.
    Done,
}

impl Controller {
    /// The guest was started as `begin` says. A guest that is paused, and filters of system calls, do not wait.
    pub(super) fn begin_to_settle(&mut self, begin: Begin) {
        if self.settling == Settling::NotStarted {
            let now = Instant::now();
            let moment = (MAKINGS * (now - self.created)).clamp(*MOMENT.start(), *MOMENT.end());
            self.settling = Settling::At(now + moment);
        }
        if begin == Begin::Paused || thread::are_confined() {
            self.settle();
        }
    }

    /// Does what waited for the guest to have run for a moment, once.
    fn settle(&mut self) {
        if std::mem::replace(&mut self.settling, Settling::Done) == Settling::Done {
            return;
        }
        if let Some(hook) = self.when_settled.take() {
            hook(self);
        }
        self.warn_of_emulation();
    }

    /// Waits for what is to be seen to. When the guest has run for a moment meanwhile, what waited for that is done.
    pub(super) fn wait(&mut self, events: &mut EventLoop) -> io::Result<Wake> {
        if let Settling::At(settles_at) = self.settling {
            if let Some(wake) = events.run_until(settles_at)? {
                return Ok(wake);
            }
            let had_inbox = self.inbox.is_some();
            self.settle();
            if let (false, Some(inbox)) = (had_inbox, &self.inbox) {
                events.watch_requests(inbox.wake().as_raw_fd());
            }
        }
        events.run()
    }

    /// Says that a Linux kernel will not get far where KVM has no hardware to run it on. Smaller kernels are
    /// made for such hosts and need no warning.
    fn warn_of_emulation(&self) {
        let kernel = self.config.boot_source.as_ref().map(|source| &source.kernel_image_path);
        let size = kernel.and_then(|path| path.metadata().ok()).map_or(0, |metadata| metadata.len());
        if size >= SMALLEST_LINUX && host::served_by() == KvmServer::Pvm {
            log::warn!("KVM is served by {}: {}", KvmServer::Pvm, KvmServer::Pvm.advice());
        }
    }
}
