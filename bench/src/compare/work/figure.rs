//! The figures, and how an instance says them.

use crate::results::Work;

/// A figure of a work.
#[derive(Debug)]
pub(super) struct Figure {
    /// Its name, here and where the built-in program prints it.
    pub(super) name: &'static str,
    /// More of it is better.
    pub(super) unit: &'static str,
    /// The work that gives it.
    pub(super) source: Source,
}

/// A work of the built-in program, which gives one figure or more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    Cpu,
    Syscalls,
    Loopback,
    Files,
    Outside,
}

/// All figures, in the order in which they are shown.
pub(super) const FIGURES: [Figure; 9] = [
    Figure { name: "cpu", unit: "steps/s", source: Source::Cpu },
    Figure { name: "syscalls", unit: "calls/s", source: Source::Syscalls },
    Figure { name: "file-write", unit: "MiB/s", source: Source::Files },
    Figure { name: "file-sync", unit: "syncs/s", source: Source::Files },
    Figure { name: "file-read", unit: "MiB/s", source: Source::Files },
    Figure { name: "loopback-trips", unit: "round trips/s", source: Source::Loopback },
    Figure { name: "loopback-stream", unit: "MiB/s", source: Source::Loopback },
    Figure { name: "outside-trips", unit: "round trips/s", source: Source::Outside },
    Figure { name: "outside-stream", unit: "MiB/s", source: Source::Outside },
];

impl Source {
    /// What the built-in program calls it. `=` and a value may follow.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Syscalls => "syscalls",
            Self::Loopback => "loopback",
            Self::Files => "files",
            Self::Outside => "outside",
        }
    }
}

/// Each figure without a sample.
pub(super) fn none_yet() -> Vec<Work> {
    let work = |figure: &Figure| Work {
        name: figure.name.to_owned(),
        unit: figure.unit.to_owned(),
        more_is_better: true,
        samples: Vec::new(),
        error: None,
    };
    FIGURES.iter().map(work).collect()
}

/// What an instance says of a work.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// A figure, and its value.
    Result(String, f64),
    /// A word that could not be done, and why.
    Failed(String, String),
}

impl Said {
    /// The value, if it is that of `figure`.
    pub(super) fn value(&self, figure: &Figure) -> Option<f64> {
        match self {
            Self::Result(name, value) if name == figure.name => Some(*value),
            _ => None,
        }
    }

    /// Why `source` could not be done, if it is about that. The disk that is mounted is for the files.
    pub(super) fn failure(&self, source: Source) -> Option<&str> {
        let Self::Failed(word, why) = self else { return None };
        let word = word.split_once('=').map_or(word.as_str(), |(word, _)| word);
        (word == source.word() || (word == super::data::MOUNT && source == Source::Files)).then_some(why)
    }
}

/// What it has said of its works. A guest's console may have put something before it on the same line.
pub(super) fn said(output: &[u8]) -> Vec<Said> {
    let text = String::from_utf8_lossy(output);
    let lines = text.lines().filter_map(|line| {
        let (_, line) = line.split_once("rvmm-bench: ")?;
        let (what, line) = line.split_once(' ')?;
        let (name, rest) = line.split_once(' ')?;
        let (name, rest) = (name.to_owned(), rest.trim());
        match what {
            "result" => {
                let value = rest
                    .split(' ')
                    .next()?
                    .parse::<f64>()
                    .ok()
                    .filter(|value| value.is_finite() && *value > 0.0)?;
                Some(Said::Result(name, value))
            }
            "failed" => Some(Said::Failed(name, rest.to_owned())),
            _ => None,
        }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_that_adds_its_own_is_understood() {
        let output = b"[    0.1] rvmm-bench: result cpu 1.25e+06 steps/s\r\nrvmm-bench: init\r\n\
            rvmm-bench: failed data=/dev/vdb No such file or directory\r\nrvmm-bench: result file-read nan MiB/s\r\n";
        let said = said(output);
        let failed = Said::Failed("data=/dev/vdb".to_owned(), "No such file or directory".to_owned());
        assert_eq!(said, [Said::Result("cpu".to_owned(), 1.25e6), failed]);
        assert_eq!(said[0].value(&FIGURES[0]), Some(1.25e6));
        assert_eq!(said[0].value(&FIGURES[1]), None);
        assert_eq!(said[1].failure(Source::Files), Some("No such file or directory"));
        assert_eq!(said[1].failure(Source::Outside), None);
    }
}
