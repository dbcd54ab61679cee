//! Why a configuration cannot be.

use std::path::PathBuf;

use super::{
    BalloonConfigError, BlockConfigError, MAX_VCPUS, MIN_MEMORY_MIB, MmdsConfigError, NetConfigError,
    VsockConfigError,
};
use crate::cpu::template::TemplateError;

/// A configuration that no VM can be made from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// There is nothing to boot.
    #[error("no kernel: give --kernel FILE, or boot-source.kernel_image_path in the configuration")]
    NoKernel,
    /// Kernel or initrd cannot be opened.
    #[error("{what} {}: {message}", path.display())]
    BootFile {
        /// Which of them.
        what: &'static str,
        /// The path that was given.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A change that changes nothing.
    #[error(
        "nothing to change: give at least one of vcpu_count, mem_size_mib, smt, track_dirty_pages, huge_pages"
    )]
    NothingToChange,
    /// Number of vCPUs out of range.
    #[error("{count} vCPUs: a guest has 1 to {MAX_VCPUS}")]
    Vcpus {
        /// What was asked for.
        count: u32,
    },
    /// Too little memory.
    #[error("{mib} MiB of memory: a guest needs {MIN_MEMORY_MIB} MiB or more (Linux about 64)")]
    TooLittleMemory {
        /// What was asked for, in MiB.
        mib: u64,
    },
    /// More memory than there is.
    #[error("{mib} MiB of memory: this host has {host_mib} MiB in all")]
    TooMuchMemory {
        /// What was asked for, in MiB.
        mib: u64,
        /// What the host has, in MiB.
        host_mib: u64,
    },
    /// Threads that do not make up whole cores.
    #[error(
        "{count} vCPUs with machine-config.smt: two are a core; give 1 or an even number, or set smt to false"
    )]
    Smt {
        /// Number of vCPUs.
        count: u32,
    },
    /// Two drives of one name.
    #[error("drive id \"{id}\" is given twice: each drive needs an id of its own")]
    DuplicateDrive {
        /// The id.
        id: String,
    },
    /// Two drives with one file, to which one of them writes.
    #[error(
        "drives \"{first}\" and \"{second}\" both have {}: give each a file of its own, or make both read-only",
        path.display()
    )]
    SharedFile {
        /// One id.
        first: String,
        /// The other.
        second: String,
        /// The file.
        path: PathBuf,
    },
    /// Two root devices.
    #[error("drives \"{first}\" and \"{second}\" are both the root device: only one can be")]
    TwoRootDevices {
        /// One id.
        first: String,
        /// The other.
        second: String,
    },
    /// No interrupt, or no place on the bus, left.
    #[error("{count} virtio devices: there is room for {max}")]
    TooManyDevices {
        /// What was asked for.
        count: usize,
        /// What there is room for.
        max: usize,
    },
    /// A drive that cannot be.
    #[error(transparent)]
    Drive(#[from] BlockConfigError),
    /// Two network interfaces of one name.
    #[error("network interface id \"{id}\" is given twice: each interface needs an id of its own")]
    DuplicateNet {
        /// The id.
        id: String,
    },
    /// vhost-net writes to guest memory behind KVM's back.
    #[error(
        "network interface \"{id}\": vhost and machine-config.track_dirty_pages exclude each other; turn one of them off"
    )]
    VhostAndDirtyPages {
        /// The interface's id.
        id: String,
    },
    /// Two network interfaces that want the same of the host.
    #[error("network interfaces \"{first}\" and \"{second}\" both have {what}: only one can")]
    SharedNet {
        /// One id.
        first: String,
        /// The other.
        second: String,
        /// What both want: a tap or a published port.
        what: String,
    },
    /// A network interface that cannot be.
    #[error(transparent)]
    Net(#[from] NetConfigError),
    /// A metadata service that cannot be.
    #[error(transparent)]
    Mmds(#[from] MmdsConfigError),
    /// A socket device that cannot be.
    #[error(transparent)]
    Vsock(#[from] VsockConfigError),
    /// A CPU template that cannot be.
    #[error(transparent)]
    CpuTemplate(#[from] TemplateError),
    /// A balloon that cannot be.
    #[error(transparent)]
    Balloon(#[from] BalloonConfigError),
    /// A balloon in memory that cannot be given back in pieces.
    #[error(
        "balloon: guest memory of 2M huge pages cannot be given back; set machine-config.huge_pages to None or Transparent"
    )]
    BalloonOfHugePages,
}
