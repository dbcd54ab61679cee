//! The host, as its files describe it.

use std::fs::{self, OpenOptions};
use std::thread;

use vmm::kvm::host::{HostCpu, served_by};

use crate::results::{Host, Kvm};

/// Load of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Memory that could be had now, in bytes.
pub(crate) fn available_memory() -> u64 {
    meminfo("MemAvailable:")
}

/// Describes the host; `load` is that of the beginning.
pub(crate) fn describe(load: f64) -> Host {
    let cpu = HostCpu::read();
    let server = served_by();
    Host {
        cpus: thread::available_parallelism().map_or(0, usize::from),
        memory: meminfo("MemTotal:"),
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        system: system(),
        virtual_machine: cpu.hypervisor,
        // QEMU's own processors say so; a model that copies a real one's name does not.
        emulated: cpu.model.contains("TCG") || std::env::var_os("RVMM_EMULATED_HOST").is_some(),
        kvm: Kvm {
            usable: OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok(),
            served_by: server.to_string(),
            hardware: server.is_hardware(),
        },
        cgroups: cgroups(),
        root: nix::unistd::geteuid().is_root(),
        transparent_hugepage: chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        load: [load, load],
        cpu: cpu.model,
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A value of `/proc/meminfo`, in bytes.
fn meminfo(key: &str) -> u64 {
    let text = read("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn system() -> String {
    let text = read("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

fn cgroups() -> Option<u32> {
    let mounts = read("/proc/self/mounts")?;
    let types: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    // Hybrid hosts have both, and the controllers are in version 1.
    if types.contains(&"cgroup") { Some(1) } else { types.contains(&"cgroup2").then_some(2) }
}

/// The word in brackets.
fn chosen(path: &str) -> Option<String> {
    let text = read(path)?;
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}
