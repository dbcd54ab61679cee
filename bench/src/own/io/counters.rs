//! What a VM has cost the host: exits, processor time, system calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Counts of one VM, from its creation or between two moments.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Counters {
    /// KVM's own statistics of the VM, without those that are 0; empty where debugfs is not mounted.
    pub(crate) kvm: BTreeMap<String, u64>,
    /// Processor time of the threads that run vCPUs, and so of the guest, in nanoseconds. Counted: instructions.
    pub(crate) vcpu_ns: u64,
    /// Processor time of all other threads, the kernel's workers for its I/O included.
    pub(crate) device_ns: u64,
}

/// KVM's statistics that say something about I/O.
const KVM: [&str; 8] = [
    "exits",
    "io_exits",
    "mmio_exits",
    "halt_exits",
    "irq_exits",
    "irq_injections",
    "signal_exits",
    "fpu_reload",
];

impl Counters {
    pub(crate) fn read(pid: u32) -> Self {
        let mut counters = Self { kvm: kvm_statistics(pid), ..Self::default() };
        for task in tasks(pid) {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            // Nanoseconds on a CPU are the first field.
            let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            let time: u64 = schedstat.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            let is_vcpu = name.to_ascii_lowercase().contains("vcpu") || name.contains("CPU ");
            *(if is_vcpu { &mut counters.vcpu_ns } else { &mut counters.device_ns }) += time;
        }
        counters
    }

    /// The growth since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let kvm = self.kvm.iter().map(|(name, value)| {
            (name.clone(), value.saturating_sub(before.kvm.get(name).copied().unwrap_or(0)))
        });
        Self {
            kvm: kvm.collect(),
            vcpu_ns: self.vcpu_ns.saturating_sub(before.vcpu_ns),
            device_ns: self.device_ns.saturating_sub(before.device_ns),
        }
    }
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.filter_map(|task| Some(task.ok()?.path())).collect()
}

/// `/sys/kernel/debug/kvm/PID-FD/…`, summed over the process's VMs.
fn kvm_statistics(pid: u32) -> BTreeMap<String, u64> {
    let mut statistics = BTreeMap::new();
    let prefix = format!("{pid}-");
    for entry in fs::read_dir("/sys/kernel/debug/kvm").into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        for name in KVM {
            let text = fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            if let Ok(value) = text.trim().parse::<u64>() {
                *statistics.entry(name.to_owned()).or_default() += value;
            }
        }
    }
    statistics
}

/// System calls, counted by a histogram of the kernel's tracing: far cheaper than ptrace, so that what is counted stays as
/// it is.
pub(crate) struct Syscalls {
    pid: u32,
}

const EVENT: &str = "/sys/kernel/tracing/events/raw_syscalls/sys_enter";
const TRIGGER: &str = "hist:keys=common_pid,id.syscall:size=4096";

impl Syscalls {
    /// Begins to count. Without tracing on this host, nothing will be counted.
    pub(crate) fn start(pid: u32) -> Self {
        let trigger = Path::new(EVENT).join("trigger");
        // A histogram is emptied by making it anew.
        let _ = fs::write(&trigger, format!("!{TRIGGER}"));
        if let Err(error) = fs::write(&trigger, TRIGGER) {
            eprintln!("{}: {error}: system calls are not counted", trigger.display());
        }
        Self { pid }
    }

    /// What the threads that the process has now have called.
    pub(crate) fn finish(self) -> BTreeMap<String, u64> {
        let histogram = fs::read_to_string(Path::new(EVENT).join("hist")).unwrap_or_default();
        let _ = fs::write(Path::new(EVENT).join("trigger"), format!("!{TRIGGER}"));
        let threads: Vec<String> = tasks(self.pid)
            .iter()
            .filter_map(|task| Some(task.file_name()?.to_string_lossy().into_owned()))
            .collect();
        let mut counts = BTreeMap::new();
        // { common_pid:       1234, id: sys_ioctl                     [ 16] } hitcount:        100
        for line in histogram.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after =
                |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1));
            let (Some(thread), Some(name), Some(count)) =
                (after("common_pid:"), after("id:"), after("hitcount:"))
            else {
                continue;
            };
            if threads.iter().any(|own| *own == thread.trim_end_matches(',')) {
                *counts.entry(name.trim_start_matches("sys_").to_owned()).or_default() +=
                    count.parse::<u64>().unwrap_or(0);
            }
        }
        counts
    }
}
