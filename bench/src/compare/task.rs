//! What an instance is to do.

mod program;

use crate::probe;

pub(crate) use program::ensure_static;

/// Words of which the first is a program in the root file system, or a verb of the built-in one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Task {
    /// The program's path in the root file system.
    program: String,
    /// What it is told.
    words: Vec<String>,
}

/// The built-in program's path in the root file system.
pub(crate) const BUILT_IN: &str = "/bench";

/// The workload's.
pub(crate) const WORKLOAD: &str = "/workload";

/// This program's, as the probe that looks around in there.
pub(crate) const PROBE: &str = "/probe";

/// Where an instance finds what it may write to, if it has been given something.
pub(crate) const DATA: &str = "/data";

/// The first bytes of the line that says that the program runs.
pub(crate) const MARKER: &[u8] = b"rvmm-bench: started";

/// The line of the built-in program that waits to be told what to do.
pub(crate) const WAITING: &[u8] = b"rvmm-bench: waiting";

impl Task {
    /// The built-in program with `words`.
    pub(crate) fn built_in(words: &[&str]) -> Self {
        Self::of(BUILT_IN, words)
    }

    /// `program` with `words`.
    pub(crate) fn of(program: &str, words: &[&str]) -> Self {
        Self { program: program.to_owned(), words: words.iter().map(|&word| word.to_owned()).collect() }
    }

    /// The workload prints the marker and ends.
    pub(crate) fn start() -> Self {
        Self::of(WORKLOAD, &["start"])
    }

    /// The marker, and sleep.
    pub(crate) fn idle() -> Self {
        Self::built_in(&["idle"])
    }

    /// The probe, told `words`.
    pub(crate) fn probe(words: &[&str]) -> Self {
        let words: Vec<_> = std::iter::once(probe::VERB).chain(words.iter().copied()).collect();
        Self::of(PROBE, &words)
    }

    /// As a command with arguments, paths being those of the root file system.
    pub(crate) fn argv(&self) -> Vec<String> {
        std::iter::once(&self.program).chain(&self.words).cloned().collect()
    }

    /// As words for the built-in program, which is the one that runs already.
    pub(crate) fn for_built_in(&self) -> Vec<String> {
        if self.program == BUILT_IN {
            return self.words.clone();
        }
        std::iter::once("run".to_owned()).chain(self.argv()).collect()
    }
}
