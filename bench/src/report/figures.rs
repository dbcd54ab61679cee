//! What tables, charts and sentences have in common: which contenders there are, what they are compared with, and their figures in short.

use crate::results::{Contender, Density, Kind, Results, Start, Step};

use super::statistics::{self, Summary, real};
use super::words;

/// Results, looked at as a whole.
pub(crate) struct Figures<'a> {
    /// All of them.
    pub(crate) results: &'a Results,
    /// Whose starts the others' are divided by.
    pub(crate) yardstick: Option<&'a Contender>,
    /// Whose work the others' is divided by.
    pub(crate) process: Option<&'a Contender>,
}

/// Where a contender stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// Something was measured, and nothing failed.
    Measured,
    /// Something failed; there may be figures all the same.
    Failed,
    /// It is not on this host.
    Missing,
    /// Nothing was measured.
    Untouched,
}

/// One contender's work of a name, and what it is to the plain process's.
pub(crate) struct Share<'a> {
    /// Whose.
    pub(crate) contender: &'a Contender,
    /// The samples in short.
    pub(crate) samples: Summary,
    /// Speed as a part of the plain process's, round by round: 1 is the same, less is slower.
    pub(crate) speeds: Vec<f64>,
}

impl<'a> Figures<'a> {
    /// Of `results`.
    pub(crate) fn new(results: &'a Results) -> Self {
        let of = |name: &str, fit: fn(&Contender) -> bool| {
            results.contenders.iter().find(|contender| contender.name == name && fit(contender))
        };
        let started = |contender: &Contender| markers(contender).iter().any(|sample| sample.is_finite());
        Self {
            results,
            yardstick: of("runc", started).or_else(|| of("process", started)),
            process: of("process", |contender| !contender.work.is_empty()),
        }
    }

    /// Contenders of which something is told: those that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = &'a Contender> {
        self.results.contenders.iter().filter(|contender| contender.missing.is_none())
    }

    /// Those that started, with the times to the marker in short.
    pub(crate) fn started(&self) -> Vec<(&'a Contender, Summary)> {
        self.present().filter_map(|contender| Some((contender, Summary::of(markers(contender))?))).collect()
    }

    /// The contender's times to the marker, divided by the yardstick's run by run; none for the yardstick itself.
    pub(crate) fn start_ratio(&self, contender: &Contender) -> Option<Summary> {
        let yardstick = self.yardstick.filter(|yardstick| yardstick.name != contender.name)?;
        Summary::of(statistics::ratios(&markers(contender), &markers(yardstick)))
    }

    /// What ratios of starts are to, and why, for the heads of tables.
    pub(crate) fn yardstick_words(&self) -> Option<String> {
        let yardstick = self.yardstick?;
        Some(match yardstick.name.as_str() {
            "runc" => yardstick.title.clone(),
            _ => format!("{}, for runc was not measured", yardstick.title),
        })
    }

    /// Names of the kinds of work, in the order in which they turn up.
    pub(crate) fn work_names(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        for work in self.present().flat_map(|contender| &contender.work) {
            if !names.contains(&work.name.as_str()) {
                names.push(work.name.as_str());
            }
        }
        names.truncate(MOST_WORKS);
        names
    }

    /// All contenders' work of that name, and the unit of its samples.
    pub(crate) fn work(&self, name: &str) -> (Vec<Share<'a>>, &'a str) {
        let of = |contender: &'a Contender| contender.work.iter().find(|work| work.name == name);
        let unit = self.present().find_map(of).map_or("", |work| work.unit.as_str());
        let plain = self.process.and_then(of).map_or(&[][..], |work| &work.samples);
        let share = |contender: &'a Contender| {
            let work = of(contender)?;
            let speeds = if work.more_is_better {
                statistics::ratios(&work.samples, plain)
            } else {
                statistics::ratios(plain, &work.samples)
            };
            Some(Share { contender, samples: Summary::of(work.samples.iter().copied())?, speeds })
        };
        (self.present().filter_map(share).collect(), unit)
    }

    /// Why the comparison ended early, what is to be known of it, and who was not measured, a sentence each.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let cut_short =
            self.results.cut_short.iter().map(|why| {
                format!("It ended before its time ({why}); what was measured until then is here.")
            });
        cut_short.chain(self.results.notes.iter().cloned()).collect()
    }
}

/// The most kinds of work that are shown.
const MOST_WORKS: usize = 20;

/// Where `contender` stands.
pub(crate) fn state(contender: &Contender) -> State {
    let Contender { missing, errors, start, memory, density, work, isolation, portability, .. } = contender;
    let empty = start.is_empty()
        && memory.is_none()
        && density.is_none()
        && work.iter().all(|work| work.samples.is_empty())
        && isolation.is_none()
        && portability.is_none();
    match () {
        () if missing.is_some() => State::Missing,
        () if !errors.is_empty() => State::Failed,
        () if empty => State::Untouched,
        () => State::Measured,
    }
}

/// What a work is called: its name is for `--csv` and its like.
pub(crate) fn work_title(name: &str) -> String {
    match name {
        "cpu" => "CPU loop".to_owned(),
        "syscalls" => "system calls".to_owned(),
        _ => name.replace('-', " "),
    }
}

/// Work that was not done for the same reason.
pub(crate) struct LeftOut<'a> {
    /// Why not, or not in each round.
    pub(crate) reason: &'a str,
    /// What the kinds of work are called.
    pub(crate) works: Vec<String>,
    /// Whose.
    pub(crate) titles: Vec<&'a str>,
}

/// All work that was not done, by reason: what needs rights or devices that a contender does not have is no failure.
pub(crate) fn left_out<'a>(figures: &Figures<'a>) -> Vec<LeftOut<'a>> {
    let mut all: Vec<LeftOut<'a>> = Vec::new();
    for contender in figures.present() {
        for work in &contender.work {
            let Some(reason) = work.error.as_deref() else { continue };
            let at = all.iter().position(|left_out| left_out.reason == reason).unwrap_or_else(|| {
                all.push(LeftOut { reason, works: Vec::new(), titles: Vec::new() });
                all.len() - 1
            });
            let Some(left_out) = all.get_mut(at) else { continue };
            let work = work_title(&work.name);
            if !left_out.works.contains(&work) {
                left_out.works.push(work);
            }
            if !left_out.titles.contains(&contender.title.as_str()) {
                left_out.titles.push(&contender.title);
            }
        }
    }
    all
}

/// Times to the marker.
pub(crate) fn markers(contender: &Contender) -> Vec<f64> {
    each(contender, |start| start.marker)
}

/// A value of each start.
pub(crate) fn each(contender: &Contender, value: impl Fn(&Start) -> f64) -> Vec<f64> {
    contender.start.iter().map(value).collect()
}

/// What the parts of a VM's start are called.
pub(crate) const PARTS: [&str; 3] =
    ["VMM, until the kernel's clock runs", "guest's kernel", "guest's first process"];

/// What has to be known of the first part.
pub(crate) const FIRST_PART: &str = "The VMM's part ends when the guest's kernel starts its clock: a compressed kernel has unpacked itself by then.";

/// Medians of the parts of a VM's start, as in [`PARTS`]. None where it has no parts.
pub(crate) fn parts(contender: &Contender) -> Option<[f64; 3]> {
    let parts: Vec<_> = contender.start.iter().filter_map(|start| start.parts.as_ref()).collect();
    let median = |of: fn(&crate::results::Parts) -> f64| {
        Summary::of(parts.iter().map(|parts| of(parts))).map(|summary| summary.median)
    };
    Some([median(|parts| parts.vmm)?, median(|parts| parts.kernel)?, median(|parts| parts.init)?])
}

/// Memory of the guest, and of all else, in bytes.
pub(crate) fn memory(contender: &Contender) -> Option<[f64; 2]> {
    let memory = contender.memory.as_ref()?;
    let guest = memory.guest.min(memory.total);
    Some([words::bytes(guest), words::bytes(memory.total - guest)])
}

/// Memory for each instance, in bytes.
pub(crate) fn memory_per_instance(step: &Step) -> f64 {
    words::bytes(step.memory) / real(step.instances)
}

/// Starts per second that took `ms` together.
pub(crate) fn rate(step: &Step, ms: f64) -> f64 {
    real(step.instances) / ms * 1000.0
}

/// The step with the most instances.
pub(crate) fn last_step(density: &Density) -> Option<&Step> {
    density.steps.iter().filter(|step| step.instances > 0).max_by_key(|step| step.instances)
}

/// What a kind is called.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Process => "process",
        Kind::Container => "container",
        Kind::Sandbox => "user-space kernel",
        Kind::MicroVm => "microVM",
    }
}
