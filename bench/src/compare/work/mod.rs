//! How fast work is done inside: arithmetic, system calls, files, TCP within and to the outside.
//!
//! In each round every contender starts one instance that does all works one after the other. What fails is noted with the work,
//! and that work is not tried again.

mod data;
mod figure;

use std::time::Duration;

use anyhow::anyhow;

use crate::report::Progress;

use super::contender::{Entry, Order};
use super::instance::Instance;
use super::network::Network;
use super::stage::Stage;
use super::task::Task;
use super::{interrupt, tree};

use data::Data;
use figure::{FIGURES, Said, Source};

/// The most rounds that are worth their time: a work is itself a mean over many repetitions.
const MOST_ROUNDS: usize = 5;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_millis(300);

/// The share of an instance's time that a figure may take at most, so that a slow start and all works have their time too.
const SHARE: u32 = 20;

/// Measures all works in turns, at most 5 rounds, fewer where `runs` is less.
///
/// # Errors
/// A signal wants the benchmark to end.
pub(crate) fn measure(
    stage: &Stage,
    entries: &mut [Entry],
    runs: usize,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let network = Network::new(stage);
    if let Err(error) = &network {
        notes.push(format!("The outside network was left out: {error:#}."));
    }
    notes.extend(data::caution(stage));
    let taking_part = entries.iter_mut().filter(|entry| entry.takes_part);
    let mut works: Vec<_> = taking_part.map(|entry| Works::new(stage, entry)).collect();
    let rounds = runs.min(MOST_ROUNDS);
    let progress = Progress::phase("work", rounds * works.len());
    for round in 0..rounds {
        for works in &mut works {
            progress.tick(&works.entry.result.title);
            works.round(&format!("{}-work-{round}", stage.id()), network.as_ref());
            interrupt::check()?;
        }
    }
    Ok(())
}

/// The works of a contender.
struct Works<'a> {
    stage: &'a Stage,
    entry: &'a mut Entry,
    /// What it writes to. None where it can write to nothing; the work says why.
    data: Option<Data>,
}

impl<'a> Works<'a> {
    /// Makes what `entry` writes to, and a place for each figure in its results.
    fn new(stage: &'a Stage, entry: &'a mut Entry) -> Self {
        entry.result.work = figure::none_yet();
        let mut works = Self { stage, entry, data: None };
        match works.make_data() {
            Ok(data) => works.data = Some(data),
            Err(error) => works.give_up(Source::Files, &format!("{error:#}")),
        }
        works
    }

    /// Makes what it writes to, and looks whether it can be given that.
    fn make_data(&self) -> anyhow::Result<Data> {
        let contender = &self.entry.contender;
        let data = Data::new(self.stage, contender.kind(), contender.name())?;
        let task = self.task(&data.words());
        contender
            .launch(self.stage, &Order { id: "ID", task: &task, link: None, data: Some(data.path()) })?;
        Ok(data)
    }

    /// Does all that has not failed yet.
    fn round(&mut self, id: &str, network: Result<&Network, &anyhow::Error>) {
        let all = [Source::Cpu, Source::Syscalls, Source::Loopback, Source::Files, Source::Outside];
        let wanted: Vec<_> = all.into_iter().filter(|&source| self.wants(source)).collect();
        // An instance that says nothing may be one that cannot start with its network, with what it writes to, or with both.
        let suspects: [&[Source]; 4] =
            [&[], &[Source::Outside], &[Source::Files], &[Source::Files, Source::Outside]];
        let mut first_failure = None;
        for (attempt, &left_out) in suspects.iter().enumerate() {
            let rest: Vec<_> = wanted.iter().copied().filter(|source| !left_out.contains(source)).collect();
            let tried_before = left_out.iter().any(|source| !wanted.contains(source));
            if rest.is_empty() || tried_before {
                continue;
            }
            let outcome = self.run_works(&format!("{id}-{attempt}"), &rest, network);
            if outcome.as_ref().is_ok_and(|outcome| !outcome.said.is_empty()) {
                self.keep(&rest, outcome);
                if let Some(failure) = first_failure {
                    self.keep(left_out, failure);
                }
                return;
            }
            if interrupt::check().is_err() {
                return;
            }
            first_failure.get_or_insert(outcome);
        }
        if let Some(failure) = first_failure {
            self.keep(&wanted, failure);
        }
    }

    fn run_works(
        &self,
        id: &str,
        sources: &[Source],
        network: Result<&Network, &anyhow::Error>,
    ) -> anyhow::Result<Outcome> {
        let data = self.data.as_ref().filter(|_| sources.contains(&Source::Files));
        let end = if sources.contains(&Source::Outside) {
            let network = network.map_err(|error| anyhow!("{error:#}"))?;
            Some(network.join(self.entry.contender.kind())?)
        } else {
            None
        };
        let words = sources.iter().flat_map(|&source| match (source, &end) {
            (Source::Files, _) => data.map(Data::words).unwrap_or_default(),
            (Source::Outside, Some(end)) => vec![format!("{}={}", source.word(), end.link.server)],
            _ => vec![source.word().to_owned()],
        });
        let task = self.task(&words.collect::<Vec<_>>());
        let link = end.as_ref().map(|end| &end.link);
        self.run(&Order { id, task: &task, link, data: data.map(Data::path) })
    }

    fn task(&self, words: &[String]) -> Task {
        let span = SPAN.min(self.stage.timeout / SHARE).as_millis().max(1).to_string();
        let mut all = vec!["work", &span];
        all.extend(words.iter().map(String::as_str));
        Task::built_in(&all)
    }

    /// Runs one instance until nothing of it is left.
    fn run(&self, order: &Order) -> anyhow::Result<Outcome> {
        let mut instance = Instance::start(self.stage, self.entry, order)?;
        let error = instance
            .end()
            .err()
            .unwrap_or_else(|| anyhow!("it ended without this figure{}", instance.last_words()));
        tree::settle();
        let said = figure::said(instance.output());
        drop(instance);
        tree::clear();
        Ok(Outcome { said, error })
    }

    /// Whether nothing of `source` has failed.
    fn wants(&self, source: Source) -> bool {
        FIGURES
            .iter()
            .zip(&self.entry.result.work)
            .all(|(figure, work)| figure.source != source || work.error.is_none())
    }

    fn give_up(&mut self, source: Source, reason: &str) {
        self.keep(&[source], Err(anyhow!("{reason}")));
    }

    /// Puts what was found where it belongs. A figure of `sources` that is not there has failed.
    fn keep(&mut self, sources: &[Source], outcome: anyhow::Result<Outcome>) {
        // What a signal has cut off is nobody's failure.
        if interrupt::check().is_err() {
            return;
        }
        let Outcome { said, error } = outcome.unwrap_or_else(|error| Outcome { said: Vec::new(), error });
        let otherwise = format!("{error:#}");
        for (figure, work) in FIGURES.iter().zip(&mut self.entry.result.work) {
            if !sources.contains(&figure.source) {
                continue;
            }
            let value = said.iter().find_map(|said| said.value(figure));
            let reason = said.iter().find_map(|said| said.failure(figure.source));
            match value {
                Some(value) => work.samples.push(value),
                None => work.error = Some(reason.unwrap_or(&otherwise).to_owned()),
            }
        }
    }
}

/// What an instance has said of its works, and why it has not said the rest.
struct Outcome {
    said: Vec<Said>,
    error: anyhow::Error,
}
