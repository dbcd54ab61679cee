//! The results in words. Each sentence is made from figures, and only where they are there.

use crate::results::{Contender, Kind, Portability, Step};

use super::figures::{self, Figures, Share, State};
use super::statistics::{FEWEST, Summary, Verdict, real};
use super::{isolation, words};

/// A middle half that is wider than this part of the median is pointed out.
const NOISY: f64 = 0.25;

/// How "told apart" is to be understood.
pub(crate) const METHOD: &str = "Contenders took turns, so that what else the host did met them all. A ratio is the median of the ratios \
    run by run; behind it, in brackets, is the middle half of them. Two are told apart where nine of ten runs agree on which of them is \
    faster, or all where there are fewer than ten runs. p99 of fewer than 100 runs is close to the largest value seen.";

/// A heading and its sentences.
pub(crate) struct Paragraph {
    /// What it is about.
    pub(crate) topic: &'static str,
    /// The sentences.
    pub(crate) sentences: Vec<String>,
}

/// What the figures say.
pub(crate) fn summary(figures: &Figures<'_>) -> Vec<Paragraph> {
    let paragraphs = [
        ("Start", start(figures)),
        ("Memory", memory(figures)),
        ("Density", density(figures)),
        ("Work", work(figures)),
        ("Isolation", isolation::sentences(figures)),
        ("Portability", portability(figures)),
        ("Not measured", not_measured(figures)),
    ];
    let paragraphs = paragraphs.into_iter().filter(|(_, sentences)| !sentences.is_empty());
    paragraphs.map(|(topic, sentences)| Paragraph { topic, sentences }).collect()
}

fn start(figures: &Figures<'_>) -> Vec<String> {
    let mut started = figures.started();
    started.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
    let mut sentences = Vec::new();
    if let [(first, low), .., (last, high)] = started.as_slice() {
        sentences.push(format!(
            "Medians of the times to start reach from {} ({}, {}) to {} ({}).",
            words::time(low.median),
            first.title,
            words::count(low.n, "run"),
            words::time(high.median),
            last.title
        ));
    } else if let [(only, summary)] = started.as_slice() {
        let n = words::count(summary.n, "run");
        sentences.push(format!(
            "{} started in {} at the median of {n}.",
            capital(&only.title),
            words::time(summary.median)
        ));
    }
    if let Some(yardstick) = figures.yardstick {
        let compared: Vec<_> = started
            .iter()
            .filter_map(|(contender, _)| Some((*contender, figures.start_ratio(contender)?)))
            .collect();
        let with = |verdict: Verdict| compared.iter().filter(move |(_, ratio)| Verdict::of(ratio) == verdict);
        let told = |(contender, ratio): &(&Contender, Summary)| {
            format!("{} {}", contender.title, words::ratio(ratio))
        };
        let (less, more) = (
            with(Verdict::Less).map(told).collect::<Vec<_>>(),
            with(Verdict::More).map(told).collect::<Vec<_>>(),
        );
        let title = &yardstick.title;
        if !less.is_empty() {
            sentences.push(format!("Faster than {title}, as a part of its time: {}.", words::list(&less)));
        }
        if !more.is_empty() {
            sentences.push(format!("Slower than {title}, in times of its time: {}.", words::list(&more)));
        }
        sentences.extend(not_told(
            &with(Verdict::Alike).map(|(contender, _)| *contender).collect::<Vec<_>>(),
            title,
        ));
        if with(Verdict::TooFew).next().is_some() {
            sentences
                .push(format!("With fewer than {FEWEST} runs in common, ratios are not put into words."));
        }
    }
    sentences.extend(vms(figures));
    let noisy = |(contender, summary): &(&Contender, Summary)| {
        let spread = summary.spread();
        (summary.n >= FEWEST && spread > NOISY)
            .then(|| format!("{} ({:.0} %)", contender.title, spread * 100.0))
    };
    let noisy: Vec<_> = started.iter().filter_map(noisy).collect();
    if !noisy.is_empty() {
        sentences.push(format!(
            "Starts scattered: the middle half of the runs is wider than {:.0} % of the median for {}; small differences to these mean nothing.",
            NOISY * 100.0,
            words::list(&noisy)
        ));
    }
    let [before, after] = figures.results.host.load;
    if !started.is_empty() && before > real(figures.results.host.cpus) {
        sentences.push(format!(
            "The host was busy: a load of {} before and {} after, on {}.",
            words::number(before),
            words::number(after),
            words::count(figures.results.host.cpus, "CPU")
        ));
    }
    sentences
}

/// Where VMs that boot spend their time.
fn vms(figures: &Figures<'_>) -> Option<String> {
    let most = |contender: &Contender| {
        let parts = figures::parts(contender)?;
        let named = figures::PARTS.into_iter().zip(parts);
        let (name, part) = named.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let all: f64 = parts.iter().map(|part| part.max(0.0)).sum();
        (all > 0.0).then(|| format!("{} {:.0} % ({name})", contender.title, 100.0 * part / all))
    };
    let told: Vec<_> = figures.present().filter_map(most).collect();
    (!told.is_empty())
        .then(|| format!("The largest part of a VM's start: {}. {}", words::list(&told), figures::FIRST_PART))
}

fn not_told(contenders: &[&Contender], from: &str) -> Option<String> {
    let titles: Vec<_> = contenders.iter().map(|contender| &contender.title).collect();
    (!titles.is_empty()).then(|| format!("Not told apart from {from}: {}.", words::list(&titles)))
}

fn memory(figures: &Figures<'_>) -> Vec<String> {
    let total = |contender: &Contender| contender.memory.as_ref().map(|memory| words::bytes(memory.total));
    let measured: Vec<_> =
        figures.present().filter_map(|contender| Some((contender, total(contender)?))).collect();
    let by_size = |(_, a): &&(&Contender, f64), (_, b): &&(&Contender, f64)| a.total_cmp(b);
    let mut sentences = Vec::new();
    if measured.len() > 1
        && let (Some((least, low)), Some((most, high))) =
            (measured.iter().min_by(by_size), measured.iter().max_by(by_size))
    {
        sentences.push(format!(
            "An idle instance takes from {} ({}) to {} ({}) of memory, all its processes together, measured once.",
            words::size(*low),
            least.title,
            words::size(*high),
            most.title
        ));
    }
    let with_guest = figures.present().filter_map(|contender| {
        let [guest, beside] = figures::memory(contender)?;
        (guest > 0.0).then_some((beside, &contender.title))
    });
    let mut beside: Vec<_> = with_guest.collect();
    beside.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    if let [(low, first), .., (high, last)] = beside.as_slice() {
        let (low, high) = (words::size(*low), words::size(*high));
        sentences.push(format!(
            "Beside the guest's own memory, a VM takes between {low} ({first}) and {high} ({last})."
        ));
    }
    sentences
}

fn density(figures: &Figures<'_>) -> Vec<String> {
    let last = |contender: &'_ Contender| contender.density.as_ref().and_then(figures::last_step).cloned();
    let all: Vec<_> = figures.present().filter_map(|contender| Some((contender, last(contender)?))).collect();
    let Some(most) = all.iter().map(|(_, step)| step.instances).max().filter(|&most| most > 1) else {
        return Vec::new();
    };
    let reached: Vec<_> = all.iter().filter(|(_, step)| step.instances == most).collect();
    let mut sentences = Vec::new();
    let mut range = |before: &str, value: fn(&Step) -> f64, format: fn(f64) -> String| {
        let mut values: Vec<_> =
            reached.iter().map(|(contender, step)| (value(step), &contender.title)).collect();
        values.retain(|(value, _)| value.is_finite());
        values.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        if let [(low, first), .., (high, last)] = values.as_slice() {
            sentences.push(format!(
                "{before} between {} ({first}) and {} ({last}).",
                format(*low),
                format(*high)
            ));
        }
    };
    range(
        &format!("With {most} instances side by side, each takes"),
        figures::memory_per_instance,
        words::size,
    );
    range("Started one after another, there are", |step| figures::rate(step, step.sequential), per_second);
    range("Started all at once, there are", |step| figures::rate(step, step.parallel), per_second);
    let fewer = |(contender, step): &(&Contender, Step)| {
        (step.instances < most).then(|| format!("{} ({})", contender.title, step.instances))
    };
    let fewer: Vec<_> = all.iter().filter_map(fewer).collect();
    if !fewer.is_empty() {
        sentences.push(format!("There were fewer of {}.", words::list(&fewer)));
    }
    sentences
}

fn per_second(rate: f64) -> String {
    format!("{} a second", words::number(rate))
}

/// Only those that are told apart are named: the largest and the smallest of figures that scatter are chance.
fn work(figures: &Figures<'_>) -> Vec<String> {
    let Some(process) = figures.process else { return Vec::new() };
    let (mut sentences, mut alike, mut too_few) = (Vec::new(), false, false);
    for name in figures.work_names() {
        let (shares, _) = figures.work(name);
        let others = shares.iter().filter(|share| share.contender.name != process.name);
        let mut compared: Vec<(&Share<'_>, Summary)> =
            others.filter_map(|share| Some((share, Summary::of(share.speeds.iter().copied())?))).collect();
        compared.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        let with = |verdict: Verdict| {
            let fit = compared.iter().filter(move |(_, speed)| Verdict::of(speed) == verdict);
            fit.map(|(share, speed)| format!("{} {}", share.contender.title, words::number(speed.median)))
                .collect::<Vec<_>>()
        };
        let parts = [("slower in ", with(Verdict::Less)), ("faster in ", with(Verdict::More))];
        let parts = parts.iter().filter(|(_, told)| !told.is_empty());
        let parts: Vec<_> = parts.map(|(word, told)| format!("{word}{}", words::list(told))).collect();
        if !parts.is_empty() {
            sentences.push(format!("{}: {}.", capital(&figures::work_title(name)), parts.join("; ")));
        }
        alike |= !with(Verdict::Alike).is_empty();
        too_few |= !with(Verdict::TooFew).is_empty();
    }
    let (from, named) = (&process.title, !sentences.is_empty());
    if named {
        sentences.insert(0, format!("Speed as a part of the {from}'s, where 1 is the same, medians:"));
    }
    if alike {
        let who = if named { "The others" } else { "Those measured" };
        sentences.push(format!("{who} could not be told apart from the {from}."));
    }
    if too_few {
        sentences.push(format!("With fewer than {FEWEST} rounds in common nobody is told apart."));
    }
    sentences
}

fn portability(figures: &Figures<'_>) -> Vec<String> {
    let all: Vec<(&Contender, &Portability)> = figures
        .present()
        .filter_map(|contender| Some((contender, contender.portability.as_ref()?)))
        .collect();
    let mut sizes: Vec<_> =
        all.iter().map(|(contender, portability)| (shipped(portability), contender)).collect();
    sizes.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut sentences = Vec::new();
    if let [(low, least), .., (high, most)] = sizes.as_slice() {
        let (low, high) = (words::size(*low), words::size(*high));
        sentences.push(format!(
            "What must be on the host is between {low} ({}) and {high} ({}).",
            least.title, most.title
        ));
    }
    let titles = |fit: fn(&Portability) -> bool| {
        all.iter()
            .filter(|(_, portability)| fit(portability))
            .map(|(contender, _)| &contender.title)
            .collect::<Vec<_>>()
    };
    for (before, titles) in [
        ("Started without root rights:", titles(|portability| portability.without_root == Some(true))),
        ("Did not start without root rights:", titles(|portability| portability.without_root == Some(false))),
        (
            "Another kernel or system than the host's is possible:",
            titles(|portability| portability.other_kernel),
        ),
    ] {
        if !titles.is_empty() {
            sentences.push(format!("{before} {}.", words::list(&titles)));
        }
    }
    sentences
}

/// Bytes of all that must be on the host.
pub(crate) fn shipped(portability: &Portability) -> f64 {
    portability.shipped.iter().map(|file| words::bytes(file.size)).sum()
}

fn not_measured(figures: &Figures<'_>) -> Vec<String> {
    let titles = |state: State| {
        let fit =
            figures.results.contenders.iter().filter(move |contender| figures::state(contender) == state);
        fit.map(|contender| &contender.title).collect::<Vec<_>>()
    };
    let mut sentences = Vec::new();
    for (state, before) in [
        (State::Failed, "Something failed with"),
        (State::Missing, "Not on this host:"),
        (State::Untouched, "Nothing was measured of"),
    ] {
        let titles = titles(state);
        if !titles.is_empty() {
            sentences.push(format!("{before} {}.", words::list(&titles)));
        }
    }
    sentences.extend(figures::left_out(figures).iter().map(|left_out| {
        let reason = left_out.reason.trim_end_matches('.');
        format!("Left out: {} of {} ({reason}).", words::list(&left_out.works), words::list(&left_out.titles))
    }));
    if !figures
        .results
        .contenders
        .iter()
        .any(|contender| contender.kind == Kind::MicroVm && !contender.start.is_empty())
    {
        sentences.push("No VM started.".to_owned());
    }
    sentences
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
