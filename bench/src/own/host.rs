//! Where the figures were taken.

use std::{fs, thread};

use vmm::kvm::host::{HostCpu, served_by};

use crate::compare::host::load;

/// Processor, kernel, who serves KVM and how busy the host is, in a line.
pub(crate) fn describe() -> String {
    let cpu = HostCpu::read();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let server = served_by();
    let hardware = if server.is_hardware() { "with" } else { "without" };
    let virtual_host = if cpu.hypervisor { ", itself a VM" } else { "" };
    format!(
        "{}, {cpus} CPUs, Linux {}; KVM served by {server}, {hardware} hardware virtualization{virtual_host}; load {:.2}",
        cpu.model,
        kernel.trim(),
        load()
    )
}
