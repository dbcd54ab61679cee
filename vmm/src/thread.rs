//! Starting rvmm's threads: each has a name, and the filter of system calls of its kind before it does anything else.
//!
//! The kernel has a new thread inherit the filters of the one that starts it. So a thread of another kind than the one that
//! starts it has to be started before that one has its filter, and is refused after.

use std::cell::Cell;
use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle, Scope, ScopedJoinHandle};
use std::{fmt, io};

use crate::seccomp::{FilterKind, Policy};

/// The filters of all threads of this process.
static POLICY: OnceLock<Policy> = OnceLock::new();

thread_local! {
    /// The filter that this thread has installed or inherited.
    static INSTALLED: Cell<Option<FilterKind>> = const { Cell::new(None) };
}

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// Serves the REST socket.
    Api,
    /// Writes the output of the virtio console.
    Console,
    /// Waits for the process that serves guest memory to end.
    Pager,
    /// Reads guest memory ahead.
    Prefetch,
    /// Gives a VM its memory, in the process that serves memory.
    ServedVm,
    /// Writes a snapshot to the disk.
    Snapshot,
    /// Runs the vCPU of this number.
    Vcpu(u32),
}

impl ThreadKind {
    /// The filter that it has.
    fn filter(self) -> FilterKind {
        match self {
            Self::Api => FilterKind::Api,
            Self::Vcpu(_) => FilterKind::Vcpu,
            Self::Console | Self::Pager | Self::Prefetch | Self::ServedVm | Self::Snapshot => FilterKind::Vmm,
        }
    }

    /// Bytes of its stack. What is not touched is not there.
    fn stack_size(self) -> usize {
        match self {
            // JSON may nest 128 deep, and each level takes some hundred bytes, or thousands without optimization.
            Self::Api | Self::Prefetch => 2 << 20,
            Self::ServedVm | Self::Snapshot | Self::Vcpu(_) => 256 << 10,
            Self::Console | Self::Pager => 64 << 10,
        }
    }
}

/// The thread's name.
impl fmt::Display for ThreadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "api",
            Self::Console => "console",
            Self::Pager => "pager",
            Self::Prefetch => "prefetch",
            Self::ServedVm => "served-vm",
            Self::Snapshot => "snapshot",
            Self::Vcpu(id) => return write!(f, "vcpu{id}"),
        })
    }
}

/// Has every thread that is started from now on filtered by `policy`. The first policy of a process stays.
pub(crate) fn confine_with(policy: Policy) {
    let _ = POLICY.set(policy);
}

/// Whether threads are filtered.
pub(crate) fn are_confined() -> bool {
    POLICY.get().is_some()
}

/// Installs the filter of `kind` on this thread, if it does not have it yet.
///
/// # Errors
/// What the host said. It can be tried again.
pub(crate) fn confine(kind: FilterKind) -> io::Result<()> {
    if let Some(policy) = POLICY.get()
        && INSTALLED.get() != Some(kind)
    {
        policy.filter(kind).apply()?;
        INSTALLED.set(Some(kind));
    }
    Ok(())
}

/// Starts a thread that does `work`. It has its filter when this returns.
///
/// # Errors
/// What the host said when it had no thread to give or did not install its filter. `work` is not done then.
pub fn spawn(kind: ThreadKind, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(kind.to_string()).stack_size(kind.stack_size());
    if !are_confined() {
        return builder.spawn(work);
    }
    let filter = kind.filter();
    let inherited = INSTALLED.get();
    if inherited.is_some_and(|inherited| inherited != filter) {
        return Err(io::Error::other(format!("the thread {kind} would inherit the filter of another kind")));
    }
    let (sender, installed) = mpsc::sync_channel(1);
    let thread = builder.spawn(move || {
        INSTALLED.set(inherited);
        let result = confine(filter);
        let is_confined = result.is_ok();
        // Whoever starts the thread waits for this.
        let _ = sender.send(result);
        if is_confined {
            work();
        }
    })?;
    let failed = |source: io::Error| {
        io::Error::new(
            source.kind(),
            format!("the thread {kind} cannot have its filter of system calls: {source}"),
        )
    };
    installed.recv().unwrap_or_else(|_| Err(io::Error::other("it has ended"))).map_err(failed)?;
    Ok(thread)
}

/// Starts a thread within `scope` that makes a VM beside the main thread, and ends before the guest starts: neither has a
/// filter then.
///
/// # Errors
/// What the host said.
pub(crate) fn spawn_maker<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    make: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().name("kvm".to_owned()).spawn_scoped(scope, make)
}
