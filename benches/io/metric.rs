//! What is measured, and which way is better.

use std::fmt;

use serde::Serialize;

use crate::vmms;

/// Measurements that one boot of a guest makes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Group {
    Block,
    Net,
    Vsock,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Block, Self::Net, Self::Vsock];

    pub(crate) fn parse(text: &str) -> Result<Self, &str> {
        Self::ALL.into_iter().find(|group| group.to_string() == text).ok_or(text)
    }

    /// Whether this build of rvmm has the device.
    pub(crate) fn is_supported(self) -> bool {
        match self {
            Self::Block => true,
            Self::Net => vmms::rvmm_has("--net"),
            Self::Vsock => vmms::rvmm_has("--vsock"),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Net => "net",
            Self::Vsock => "vsock",
        })
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
