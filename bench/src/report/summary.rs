//! The results in words. Each sentence is made from figures, and only where they are there.

use crate::results::{Contender, Isolation, Kind, Portability, Step};

use super::figures::{self, Figures, Share, State};
use super::statistics::{FEWEST, Summary, Verdict, real};
use super::words;

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
        ("Isolation", isolation(figures)),
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
            "Fastest to start: {}, {} at the median of {}; slowest: {}, {}.",
            first.title,
            words::time(low.median),
            words::count(low.n, "run"),
            last.title,
            words::time(high.median)
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
        let [vmm, kernel, init] = figures::parts(contender)?;
        let parts = [("its VMM", vmm), ("its guest's kernel", kernel), ("its guest's first process", init)];
        let (name, part) = parts.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let all: f64 = parts.iter().map(|(_, part)| part.max(0.0)).sum();
        (all > 0.0).then(|| format!("{} {:.0} % in {name}", contender.title, 100.0 * part / all))
    };
    let told: Vec<_> = figures.present().filter_map(most).collect();
    (!told.is_empty()).then(|| format!("The largest part of a VM's start: {}.", words::list(&told)))
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

fn work(figures: &Figures<'_>) -> Vec<String> {
    let Some(process) = figures.process else { return Vec::new() };
    let sentence = |name: &str| {
        let (shares, _) = figures.work(name);
        let others = shares.iter().filter(|share| share.contender.name != process.name);
        let mut compared: Vec<(&Share<'_>, Summary)> =
            others.filter_map(|share| Some((share, Summary::of(share.speeds.iter().copied())?))).collect();
        compared.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        let told = |(share, speed): &(&Share<'_>, Summary)| {
            format!("{} {}", share.contender.title, words::number(speed.median))
        };
        let with = |verdict: Verdict| {
            compared.iter().filter(|(_, speed)| Verdict::of(speed) == verdict).map(told).collect::<Vec<_>>()
        };
        let parts = [
            ("slower in ", with(Verdict::Less)),
            ("faster in ", with(Verdict::More)),
            ("not told apart in ", with(Verdict::Alike)),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(_, told)| !told.is_empty())
            .map(|(word, told)| format!("{word}{}", shortened(&told)))
            .collect();
        let title = capital(&figures::work_title(name));
        match compared.as_slice() {
            [(low, slowest), .., (high, fastest)] if parts.is_empty() => Some(format!(
                "{title}: from {} ({}) to {} ({}).",
                words::number(slowest.median),
                low.contender.title,
                words::number(fastest.median),
                high.contender.title
            )),
            _ => (!parts.is_empty()).then(|| format!("{title}: {}.", parts.join("; "))),
        }
    };
    let mut sentences: Vec<_> = figures.work_names().into_iter().filter_map(sentence).collect();
    if !sentences.is_empty() {
        sentences
            .insert(0, format!("Speed as a part of the {}'s, where 1 is the same, medians:", process.title));
        let few = process.work.iter().any(|work| (1..FEWEST).contains(&work.samples.len()));
        sentences.extend(few.then(|| {
            format!(
                "With fewer than {FEWEST} rounds nobody is told apart: small differences there mean nothing."
            )
        }));
    }
    sentences
}

/// A list with its middle left out: what is not said here is in the tables.
fn shortened(told: &[String]) -> String {
    match told {
        [first, _, _, .., last] => format!("{first} to {last} ({} in all)", told.len()),
        _ => words::list(told),
    }
}

fn isolation(figures: &Figures<'_>) -> Vec<String> {
    let all: Vec<(&Contender, &Isolation)> =
        figures.present().filter_map(|contender| Some((contender, contender.isolation.as_ref()?))).collect();
    let titles = |fit: &dyn Fn(&Contender, &Isolation) -> bool| {
        let fit = all.iter().filter(|(contender, isolation)| fit(contender, isolation));
        fit.map(|(contender, _)| contender.title.clone()).collect::<Vec<_>>()
    };
    let mut sentences = Vec::new();
    let mut say = |before: &str, titles: &[String], after: &str| {
        if !titles.is_empty() {
            sentences.push(format!("{before}{}{after}.", words::list(titles)));
        }
    };
    say(
        "The program inside sees the host's kernel: ",
        &titles(&|_, isolation| isolation.host_kernel.yes),
        "",
    );
    say("It sees another one: ", &titles(&|_, isolation| !isolation.host_kernel.yes), "");
    let panics = titles(&|_, isolation| isolation.panic.yes && !isolation.host_kernel.yes);
    say("It can bring down its own kernel, and no other: ", &panics, "");
    let calls = |(contender, isolation): &(&Contender, &Isolation)| {
        Some((isolation.host_syscalls.as_ref()?.len(), contender.title.clone()))
    };
    let mut calls: Vec<_> = all.iter().filter_map(calls).collect();
    calls.sort();
    if let [(fewest, first), .., (most, last)] = calls.as_slice() {
        sentences.push(format!(
            "The host's kernel served between {fewest} ({first}) and {most} ({last}) distinct system calls to an instance's processes."
        ));
    }
    let mut leaks: Vec<_> = all
        .iter()
        .filter(|(_, isolation)| !isolation.leaks.is_empty())
        .map(|(contender, isolation)| {
            (
                isolation.leaks.iter().filter(|leak| leak.leaks).count(),
                isolation.leaks.len(),
                &contender.title,
            )
        })
        .collect();
    leaks.sort();
    if let [(fewest, _, first), .., (most, of, last)] = leaks.as_slice() {
        sentences.push(format!("Of the {of} facts of the host that it looked for, it found between {fewest} ({first}) and {most} ({last})."));
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
