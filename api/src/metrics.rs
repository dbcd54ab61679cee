//! What the API server counts.

use devices::clock;
use serde::Serialize;
use vmm::metrics::{Counter, Gauge};

/// Counters of one server.
#[derive(Debug, Default, Serialize)]
pub struct ApiMetrics {
    /// Connections that were accepted.
    pub connections: Counter,
    /// Requests that were read to their end or refused.
    pub requests: Counter,
    /// Requests that were refused, by the server or by the VM.
    pub refused_requests: Counter,
    /// Connections that ended in an error: no HTTP, too slow, or gone before their answer.
    pub broken_connections: Counter,
    /// Microseconds from the start of the process to its socket, where somebody said when it started.
    pub process_startup_time_us: Gauge,
    /// CPU time of it, in microseconds.
    pub process_startup_time_cpu_us: Gauge,
}

/// When a process started, as its parent saw it; in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartTimes {
    /// Of the monotonic clock.
    pub monotonic: Option<u64>,
    /// CPU time that the process had used by then.
    pub cpu: Option<u64>,
    /// CPU time that its parent spent on it.
    pub parent_cpu: Option<u64>,
}

impl ApiMetrics {
    /// Puts down what it took from `start` to now.
    pub fn started(&self, start: &StartTimes) {
        let since = |start: u64, now_ns: u64| (now_ns / 1000).saturating_sub(start);
        if let Some(start) = start.monotonic {
            self.process_startup_time_us.set(since(start, clock::monotonic()));
        }
        if let Some(cpu) = start.cpu {
            let used = since(cpu, clock::process_cpu()).saturating_add(start.parent_cpu.unwrap_or(0));
            self.process_startup_time_cpu_us.set(used);
        }
    }
}
