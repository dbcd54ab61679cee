//! Why a VM ended badly, or never began.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::LoadError;
use crate::console::OutputError;
use crate::vcpu::Diagnosis;
use crate::vm::VmError;

/// Why the VM ended badly, or never began.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// It could not be made.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// It could not be made from a snapshot.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The console's file.
    #[error(transparent)]
    Console(#[from] OutputError),
    /// KVM cannot run the guest any further.
    #[error(transparent)]
    Fault(Box<Diagnosis>),
    /// Its memory does not come any more.
    #[error("{}", crate::memory::LOST)]
    MemoryLost,
    /// The file that its memory comes from is shorter than it was.
    #[error(
        "the guest took a triple fault; the file behind its memory was cut while the VM runs from it: leave the memory of a \
         snapshot as it is as long as VMs run from it, and restore from a copy that is whole"
    )]
    MemoryCut,
    /// The file for metrics.
    #[error("cannot write metrics to {}", path.display())]
    Metrics {
        /// Its path.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The file for metrics is one of the guest's.
    #[error("cannot write metrics to {}: the guest has it as {}; name another file", path.display(), guest.display())]
    MetricsOfTheGuest {
        /// Its path.
        path: PathBuf,
        /// What the guest has it as.
        guest: PathBuf,
    },
    /// The file for the log is one of the guest's.
    #[error("cannot log to {}: the guest has it as {}; log to another file", path.display(), guest.display())]
    LogOfTheGuest {
        /// Its path.
        path: PathBuf,
        /// What the guest has it as.
        guest: PathBuf,
    },
    /// passt cannot be started a second time.
    #[error(
        "--on-reset restart, --net user and --seccomp-filter exclude each other: passt would have to be started again when \
         the guest boots again, and would inherit the main thread's filter; leave one of them out, or use a tap"
    )]
    FilteredPasst,
    /// The host refused something that every process has.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

impl ControllerError {
    /// The error with its causes, outermost first.
    pub(super) fn with_causes(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn Error), |error| (*error).source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
