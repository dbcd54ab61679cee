//! The results as tables, which the terminal and the HTML report have in common.

use crate::results::{Contender, Density, ProcessMemory, Shipped, Step};

use super::figures::{self, Figures, Share, State};
use super::statistics::{Summary, real};
use super::summary::shipped;
use super::words::{self, NONE};

/// Heads, and rows of as many cells. The first cell of a row is its name.
#[derive(Debug)]
pub(crate) struct Table {
    /// What is in it.
    pub(crate) title: String,
    /// The heads.
    pub(crate) head: Vec<String>,
    /// The rows.
    pub(crate) rows: Vec<Vec<String>>,
    /// Whether the cells are figures, which are set under each other.
    pub(crate) figures: bool,
    /// What has to be known to read it; may be empty.
    pub(crate) note: &'static str,
}

impl Table {
    pub(super) fn of(title: impl Into<String>, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self {
            title: title.into(),
            head: head.iter().map(|&head| head.to_owned()).collect(),
            rows,
            figures: true,
            note: "",
        }
    }

    pub(super) fn of_words(title: impl Into<String>, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { figures: false, ..Self::of(title, head, rows) }
    }

    pub(super) fn noting(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    /// Whether what is below `head` is words, though the table has figures.
    pub(crate) fn in_words(&self, head: &str) -> bool {
        self.figures && matches!(head, "processes" | "ended by")
    }

    /// Nothing but heads.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Times to start, in all their statistics.
pub(crate) fn start(figures: &Figures<'_>) -> Table {
    let ratio = figures
        .yardstick
        .map_or_else(|| "ratio".to_owned(), |yardstick| format!("ratio to {}", yardstick.title));
    let head = ["", "runs", "p50", "p90", "p99", "min", &ratio, "to the end, p50", "CPU time, p50"];
    let row = |(contender, summary): (&Contender, Summary)| {
        let median = |values: Vec<f64>| {
            Summary::of(values).map_or_else(|| NONE.to_owned(), |summary| words::time(summary.median))
        };
        let own = figures.yardstick.is_some_and(|yardstick| yardstick.name == contender.name);
        vec![
            contender.title.clone(),
            summary.n.to_string(),
            words::time(summary.median),
            words::time(summary.p90),
            words::time(summary.p99),
            words::time(summary.min),
            if own {
                "1".to_owned()
            } else {
                or_none(figures.start_ratio(contender).as_ref().map(words::ratio))
            },
            median(figures::each(contender, |start| start.end)),
            median(figures::each(contender, |start| start.cpu)),
        ]
    };
    Table::of("Start", &head, figures.started().into_iter().map(row).collect())
}

/// Where VMs' time to the marker went.
pub(crate) fn parts(figures: &Figures<'_>) -> Table {
    let row = |contender: &Contender| {
        let n = contender.start.iter().filter(|start| start.parts.is_some()).count();
        let [vmm, kernel, init] = figures::parts(contender)?.map(words::time);
        Some(vec![contender.title.clone(), n.to_string(), vmm, kernel, init])
    };
    let [vmm, kernel, init] = figures::PARTS;
    let rows = figures.present().filter_map(row).collect();
    Table::of("Parts of a VM's start, p50", &["", "runs", vmm, kernel, init], rows)
}

/// Memory of one instance.
pub(crate) fn memory(figures: &Figures<'_>) -> Table {
    let row = |contender: &Contender| {
        let memory = contender.memory.as_ref()?;
        let [guest, rest] = figures::memory(contender)?;
        let process =
            |process: &ProcessMemory| format!("{} {}", process.name, words::size(words::bytes(process.pss)));
        let mut processes: Vec<_> = memory.processes.iter().take(8).map(process).collect();
        if memory.processes.len() > processes.len() {
            processes.push("…".to_owned());
        }
        Some(vec![
            contender.title.clone(),
            words::size(words::bytes(memory.total)),
            words::size(guest),
            words::size(rest),
            processes.join(", "),
        ])
    };
    let head = ["", "together", "guest", "beside it", "processes"];
    Table::of("Memory of an idle instance (1 sample)", &head, figures.present().filter_map(row).collect())
}

/// Instances side by side.
pub(crate) fn density(figures: &Figures<'_>) -> Table {
    let rows = |(contender, density): (&Contender, &Density)| {
        let last = density.steps.len();
        let row = |(step, at): (&Step, usize)| {
            vec![
                contender.title.clone(),
                step.instances.to_string(),
                words::size(figures::memory_per_instance(step)),
                host_memory(step),
                words::number(figures::rate(step, step.sequential)),
                words::number(figures::rate(step, step.parallel)),
                if at == last { density.ended_by.clone() } else { String::new() },
            ]
        };
        density.steps.iter().zip(1..).map(row).collect::<Vec<_>>()
    };
    let with = figures.present().filter_map(|contender| Some((contender, contender.density.as_ref()?)));
    let head = [
        "",
        "instances",
        "memory each",
        "of the host's, each",
        "starts/s, one by one",
        "starts/s, at once",
        "ended by",
    ];
    Table::of("Density (1 sample each)", &head, with.flat_map(rows).collect()).noting(HOST_MEMORY)
}

/// What the host has less of for each instance.
fn host_memory(step: &Step) -> String {
    match u64::try_from(step.host_memory) {
        Ok(bytes) => words::size(words::bytes(bytes) / real(step.instances)),
        Err(_) => "noise".to_owned(),
    }
}

/// Before the table of instances side by side.
const HOST_MEMORY: &str = "“Of the host's” is by how much the host's available memory fell, for each instance. Where it rose instead, what else the host did was more than the instances took: noise.";

/// Work of one name.
pub(crate) fn work(figures: &Figures<'_>, name: &str) -> Table {
    let (shares, unit) = figures.work(name);
    let row = |share: Share<'_>| {
        let speed = Summary::of(share.speeds.iter().copied());
        vec![
            share.contender.title.clone(),
            share.samples.n.to_string(),
            words::with_unit(share.samples.median, unit),
            words::with_unit(share.samples.min, unit),
            words::with_unit(share.samples.max, unit),
            or_none(speed.as_ref().map(words::ratio)),
        ]
    };
    let head = ["", "rounds", "p50", "min", "max", "speed, process = 1"];
    Table::of(format!("Work: {}", figures::work_title(name)), &head, shares.into_iter().map(row).collect())
}

/// What it takes along, and what it asks of its host.
pub(crate) fn portability(figures: &Figures<'_>) -> Table {
    let row = |contender: &Contender| {
        let portability = contender.portability.as_ref()?;
        let files: Vec<_> = portability
            .shipped
            .iter()
            .take(12)
            .map(|file: &Shipped| format!("{} {}", file.what, words::size(words::bytes(file.size))))
            .collect();
        let without_root = match (portability.without_root, &portability.without_root_error) {
            (None, None) => "not tried".to_owned(),
            (None, Some(error)) => format!("could not be tried: {error}"),
            (Some(yes), None) => words::yes(yes).to_owned(),
            (Some(yes), Some(error)) => format!("{}: {error}", words::yes(yes)),
        };
        Some(vec![
            contender.title.clone(),
            format!("{} ({})", words::size(shipped(portability)), files.join(", ")),
            if portability.steps.is_empty() { "none".to_owned() } else { portability.steps.join("; ") },
            without_root,
            portability.host_features.join(", "),
            if portability.other_kernel { "possible" } else { "no" }.to_owned(),
        ])
    };
    let head = [
        "",
        "on the host",
        "set-up",
        "starts without root rights",
        "kernel features in use",
        "other kernel or system",
    ];
    Table::of_words("Portability and effort", &head, figures.present().filter_map(row).collect())
}

/// Who failed or is not there, and what brings it; what was left out.
pub(crate) fn absent(figures: &Figures<'_>) -> Table {
    let rows = |contender: &Contender| {
        let row = |what: &str, mend: &str| vec![contender.title.clone(), what.to_owned(), mend.to_owned()];
        match (figures::state(contender), &contender.missing) {
            (_, Some(missing)) => vec![row(&format!("not here: {}", missing.what), &missing.mend)],
            (State::Untouched, None) => vec![row("nothing was measured", NONE)],
            _ => contender.errors.iter().map(|error| row(error, NONE)).collect(),
        }
    };
    let left_out = figures::left_out(figures).into_iter().map(|left_out| {
        let what = format!("left out: {}: {}", words::list(&left_out.works), left_out.reason);
        vec![words::list(&left_out.titles), what, NONE.to_owned()]
    });
    let rows = figures.results.contenders.iter().flat_map(rows).chain(left_out).collect();
    Table::of_words("Failed, missing or left out", &["", "what", "what brings it"], rows)
}

/// Where and with what it was measured.
pub(crate) fn host(figures: &Figures<'_>) -> Table {
    let (host, settings) = (&figures.results.host, &figures.results.settings);
    let size = |size: u64| words::size(words::bytes(size));
    let mut cells = vec![
        ("processor", format!("{} × {}", host.cpus, host.cpu)),
        ("memory", size(host.memory)),
        ("kernel", host.kernel.clone()),
        ("system", host.system.clone()),
        (
            "is it a VM",
            match () {
                () if host.emulated => "yes, emulated".to_owned(),
                () => words::yes(host.virtual_machine).to_owned(),
            },
        ),
        (
            "KVM",
            match () {
                () if !host.kvm.usable => "cannot be used".to_owned(),
                () if host.kvm.hardware && host.emulated => {
                    format!("{}, by hardware that is emulated", host.kvm.served_by)
                }
                () if host.kvm.hardware => format!("{}, by hardware", host.kvm.served_by),
                () => format!("{}, not by hardware", host.kvm.served_by),
            },
        ),
        (
            "control groups",
            host.cgroups.map_or_else(|| "none".to_owned(), |version| format!("version {version}")),
        ),
        ("rights", if host.root { "root" } else { "a user's" }.to_owned()),
        ("transparent huge pages", or_none(host.transparent_hugepage.clone())),
        ("load before, after", host.load.map(words::number).join(", ")),
    ];
    cells.extend([
        (
            "measured",
            format!(
                "{}, in {}",
                words::date(figures.results.began),
                words::duration(figures.results.seconds)
            ),
        ),
        ("rvmm", figures.results.version.clone()),
        ("starts", format!("{}, after {} to warm up", settings.runs, settings.warm_up)),
        (
            "guest",
            format!("{}, {}", words::count(settings.guest_cpus as usize, "CPU"), size(settings.guest_memory)),
        ),
        ("given up after", words::duration(settings.timeout)),
        (
            "limits",
            format!(
                "{} and {}",
                words::count(settings.max_instances, "instance"),
                size(settings.memory_budget)
            ),
        ),
        ("program", {
            let workload = &settings.workload;
            format!("{}, {}, SHA-256 {}", workload.file, size(workload.size), workload.sha256)
        }),
    ]);
    let rows = cells.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Table::of_words("Host and settings", &["", "value"], rows)
}

/// Versions and commands.
pub(crate) fn commands(figures: &Figures<'_>) -> Table {
    let row = |contender: &Contender| {
        vec![
            contender.title.clone(),
            contender.name.clone(),
            figures::kind(contender.kind).to_owned(),
            or_none(contender.version.clone()),
            words::command(&contender.command),
        ]
    };
    Table::of_words(
        "Contenders",
        &["", "name", "kind", "version", "command"],
        figures.present().map(row).collect(),
    )
}

pub(super) fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}
