//! What a comparison found: everything that the reports are drawn from, and what `--json` writes.
//!
//! Times are in milliseconds, sizes in bytes. Each list of samples is in the order in which they were taken.

mod host;
mod isolation;
mod number;
mod portability;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Number;

pub(crate) use host::{Host, Kvm};
pub(crate) use isolation::{Answer, Isolation, Leak, Means};
pub(crate) use portability::{Portability, Shipped};

/// The version of this format. A reader refuses every other one.
pub(crate) const FORMAT: u32 = 1;

/// The most that a file of results may hold, in bytes: they come from others as well.
const MOST_BYTES: u64 = 64 << 20;

/// A comparison.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    /// The version of this format, 1.
    pub(crate) format: u32,
    /// The version of rvmm that measured.
    pub(crate) version: String,
    /// When it began, as seconds since 1970 (UTC).
    pub(crate) began: u64,
    /// How long it took, in seconds.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) seconds: f64,
    /// The command that repeats it.
    pub(crate) command: Vec<String>,
    /// What "started" means here.
    pub(crate) definition: String,
    /// Where it was measured.
    pub(crate) host: Host,
    /// What was asked for.
    pub(crate) settings: Settings,
    /// Who took part, or could not, in the order of the turns.
    pub(crate) contenders: Vec<Contender>,
    /// Why it ended before its time, if it did: what was measured until then is here.
    pub(crate) cut_short: Option<String>,
    /// What is to be known of the measurements, a sentence each: a tracer that is not there, an instance that left processes behind.
    pub(crate) notes: Vec<String>,
}

/// What was asked for.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Starts of each contender.
    pub(crate) runs: usize,
    /// Starts before them, which are not kept.
    pub(crate) warm_up: usize,
    /// Memory of a guest, in bytes.
    pub(crate) guest_memory: u64,
    /// Virtual CPUs of a guest.
    pub(crate) guest_cpus: u32,
    /// After how long an instance is given up, in seconds.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) timeout: f64,
    /// The most memory that the instances may take together, in bytes.
    pub(crate) memory_budget: u64,
    /// The most instances at a time.
    pub(crate) max_instances: usize,
    /// The program that is started.
    pub(crate) workload: Workload,
}

/// The program that every contender starts.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    /// Its file, or "built in".
    pub(crate) file: String,
    /// In bytes.
    pub(crate) size: u64,
    /// SHA-256, in hexadecimal.
    pub(crate) sha256: String,
}

/// One that takes part, or could not.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contender {
    /// What `--only` calls it.
    pub(crate) name: String,
    /// What a reader calls it.
    pub(crate) title: String,
    /// What stands between it and the host.
    pub(crate) kind: Kind,
    /// What its program says of its version.
    pub(crate) version: Option<String>,
    /// The command that starts it.
    pub(crate) command: Vec<String>,
    /// Why it does not take part, and what brings it.
    pub(crate) missing: Option<Missing>,
    /// Why it was given up, or what failed, a line each.
    pub(crate) errors: Vec<String>,
    /// Starts.
    pub(crate) start: Vec<Start>,
    /// Memory of one instance that idles.
    pub(crate) memory: Option<Memory>,
    /// Instances side by side.
    pub(crate) density: Option<Density>,
    /// Work done inside, by name of the work.
    pub(crate) work: Vec<Work>,
    /// What it isolates.
    pub(crate) isolation: Option<Isolation>,
    /// What it takes along.
    pub(crate) portability: Option<Portability>,
}

/// What stands between the program and the host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Nothing.
    Process,
    /// Namespaces and control groups; the host's kernel.
    Container,
    /// A kernel in user space, which asks the host's.
    Sandbox,
    /// A kernel of its own on virtual hardware.
    MicroVm,
}

/// Why one does not take part.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Missing {
    /// What is not there.
    pub(crate) what: String,
    /// What brings it.
    pub(crate) mend: String,
}

/// A start, all times in ms from just before the process is created.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// To the first byte of the marker.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) marker: f64,
    /// To the end of the process, everything it has started included.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) end: f64,
    /// Processor time of all of it, user and system.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) cpu: f64,
    /// Of a VM that boots: where the time to the marker went.
    pub(crate) parts: Option<Parts>,
}

/// Where a VM's time to the marker went, in ms.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parts {
    /// To the begin of the kernel's log clock: the VMM, a compressed kernel that unpacks itself, and the kernel's very first steps.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) vmm: f64,
    /// From there to the guest's first process.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) kernel: f64,
    /// From there to the marker.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) init: f64,
}

/// Memory of one instance, some seconds after its marker.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// Proportional set size of all its processes, guest memory included.
    pub(crate) total: u64,
    /// How much of that is memory of a guest.
    pub(crate) guest: u64,
    /// By process.
    pub(crate) processes: Vec<ProcessMemory>,
}

/// A process that an instance needs.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessMemory {
    /// The program's name.
    pub(crate) name: String,
    /// Proportional set size.
    pub(crate) pss: u64,
}

/// Instances side by side.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Density {
    /// With 1, 2, 4, … instances.
    pub(crate) steps: Vec<Step>,
    /// Why there are no more of them.
    pub(crate) ended_by: String,
}

/// So many instances at a time.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// How many.
    pub(crate) instances: usize,
    /// Proportional set size of all their processes.
    pub(crate) memory: u64,
    /// By how much the host's available memory fell. It may be negative where the host was busy.
    pub(crate) host_memory: i64,
    /// From the first process to the last marker, one after another, in ms.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) sequential: f64,
    /// The same, all at once, in ms.
    #[serde(deserialize_with = "number::one")]
    #[schemars(with = "Option<f64>")]
    pub(crate) parallel: f64,
}

/// Work that was done inside.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Work {
    /// What was done.
    pub(crate) name: String,
    /// The unit of the samples.
    pub(crate) unit: String,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
    /// One for each round.
    #[serde(deserialize_with = "number::many")]
    #[schemars(with = "Vec<Option<f64>>")]
    pub(crate) samples: Vec<f64>,
    /// Why there is none, or less.
    pub(crate) error: Option<String>,
}

impl Contender {
    /// One of which nothing is known yet.
    pub(crate) fn new(name: &str, title: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            kind,
            version: None,
            command: Vec::new(),
            missing: None,
            errors: Vec::new(),
            start: Vec::new(),
            memory: None,
            density: None,
            work: Vec::new(),
            isolation: None,
            portability: None,
        }
    }
}

impl Results {
    /// Whether anything was measured at all.
    pub(crate) fn has_figures(&self) -> bool {
        self.contenders.iter().any(|one| {
            let work = one.work.iter().any(|work| !work.samples.is_empty());
            let more = one.isolation.is_some() || one.portability.is_some() || one.density.is_some();
            !one.start.is_empty() || one.memory.is_some() || work || more
        })
    }

    /// Reads what `--json` has written.
    ///
    /// # Errors
    /// The file cannot be read, is larger than 64 MiB, is no such file, or of another version.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: Option<Number>,
        }
        let name = path.display();
        let mut text = Vec::new();
        // A device or a pipe does not say how much it has.
        let file = File::open(path).with_context(|| name.to_string())?;
        file.take(MOST_BYTES + 1).read_to_end(&mut text).with_context(|| name.to_string())?;
        ensure!(
            text.len() as u64 <= MOST_BYTES,
            "{name}: more than {} MiB, too much for results of a comparison",
            MOST_BYTES >> 20
        );
        let none = || format!("{name} has no results of rvmm bench compare");
        let Version { format } = serde_json::from_slice(&text).with_context(none)?;
        let format = format.context("it names no format").with_context(none)?;
        ensure!(format == FORMAT.into(), "{name} is of format {format}: this rvmm reads {FORMAT}");
        serde_json::from_slice(&text).with_context(none)
    }
}
