//! How often each kind of exit left the guest: what an exit costs is most of what a device costs.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_ioctls::VcpuExit;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// Counters that all vCPUs of a VM share.
#[derive(Debug, Default)]
pub struct ExitCounters {
    io_in: AtomicU64,
    io_out: AtomicU64,
    mmio_read: AtomicU64,
    mmio_write: AtomicU64,
    other: AtomicU64,
}

/// The counters' values at one moment. Exits that KVM handles in the kernel are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExitCounts {
    /// Port reads.
    pub io_in: u64,
    /// Port writes.
    pub io_out: u64,
    /// Reads of device memory.
    pub mmio_read: u64,
    /// Writes to device memory.
    pub mmio_write: u64,
    /// All others.
    pub other: u64,
}

impl ExitCounters {
    pub(super) fn count(&self, exit: &VcpuExit<'_>) {
        let counter = match exit {
            VcpuExit::IoIn(..) => &self.io_in,
            VcpuExit::IoOut(..) => &self.io_out,
            VcpuExit::MmioRead(..) => &self.mmio_read,
            VcpuExit::MmioWrite(..) => &self.mmio_write,
            _ => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The values now.
    pub fn get(&self) -> ExitCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExitCounts {
            io_in: load(&self.io_in),
            io_out: load(&self.io_out),
            mmio_read: load(&self.mmio_read),
            mmio_write: load(&self.mmio_write),
            other: load(&self.other),
        }
    }
}

/// As `{"exits": {…}}`: there may be more to count of vCPUs.
impl Serialize for ExitCounters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut vcpu = serializer.serialize_struct("ExitCounters", 1)?;
        vcpu.serialize_field("exits", &self.get())?;
        vcpu.end()
    }
}

impl fmt::Display for ExitCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { io_in, io_out, mmio_read, mmio_write, other } = self;
        let all = io_in + io_out + mmio_read + mmio_write + other;
        write!(
            f,
            "{all} exits: {io_in} port reads, {io_out} port writes, {mmio_read} MMIO reads, {mmio_write} MMIO writes, {other} others"
        )
    }
}
