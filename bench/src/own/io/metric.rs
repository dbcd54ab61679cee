//! What is measured, and which way is better.

use clap::ValueEnum as _;

use crate::args::{Group, IoArgs};
use crate::own::programs;

/// Those that are wanted; all that the measured rvmm has, where none is named.
///
/// # Errors
/// There is no rvmm.
pub(crate) fn groups(args: &IoArgs) -> anyhow::Result<Vec<Group>> {
    if !args.only.is_empty() {
        return Ok(args.only.clone());
    }
    let help = programs::rvmm_help()?;
    let is_there = |group: &Group| match group {
        Group::Block => true,
        Group::Net => programs::has(&help, "--net"),
        Group::Vsock => programs::has(&help, "--vsock"),
    };
    Ok(Group::value_variants().iter().copied().filter(is_there).collect())
}

/// A group's name, as `--only` has it.
pub(crate) fn name(group: Group) -> &'static str {
    match group {
        Group::Block => "block",
        Group::Net => "net",
        Group::Vsock => "vsock",
    }
}

/// One figure that a measurement has.
pub(crate) struct Metric {
    /// The measurement's name in the guest's script.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// The field of the load generator's JSON that it is.
    pub(crate) field: &'static str,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Better {
    More,
    Less,
}

impl Better {
    /// How much better `own` is than `other`: above 1 is better.
    pub(crate) fn ratio(self, own: f64, other: f64) -> f64 {
        match self {
            Self::More => own / other,
            Self::Less => other / own,
        }
    }

    /// The better of two.
    pub(crate) fn best(self, a: f64, b: f64) -> f64 {
        match self {
            Self::More => a.max(b),
            Self::Less => a.min(b),
        }
    }
}

const fn metric(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    field: &'static str,
) -> Metric {
    Metric { name, title, unit, better, field }
}

/// All metrics, in the order of the report.
pub(crate) const METRICS: [Metric; 11] = [
    metric("random-1", "4 KiB random read, depth 1", "IOPS", Better::More, "iops"),
    metric("random-1", "4 KiB random read, depth 1, median latency", "us", Better::Less, "median_us"),
    metric("random-32", "4 KiB random read, depth 32", "IOPS", Better::More, "iops"),
    metric("read", "1 MiB sequential read", "MiB/s", Better::More, "mib_per_second"),
    metric("write", "1 MiB sequential write", "MiB/s", Better::More, "mib_per_second"),
    metric("tcp-out", "TCP out", "Mbit/s", Better::More, "mbit_per_second"),
    metric("tcp-in", "TCP in", "Mbit/s", Better::More, "mbit_per_second"),
    metric("ping", "ping, median latency", "ms", Better::Less, "median_ms"),
    metric("vsock-out", "vsock out", "MiB/s", Better::More, "mib_per_second"),
    metric("vsock-in", "vsock in", "MiB/s", Better::More, "mib_per_second"),
    metric("vsock-echo", "vsock, one byte and back, median latency", "us", Better::Less, "median_us"),
];
