//! How a run of rvmm ended, and what can be said about it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The exit code.
    ///
    /// # Panics
    /// When a signal ended it.
    #[track_caller]
    pub(crate) fn code(&self) -> i32 {
        let signal = self.status.signal();
        self.status.code().unwrap_or_else(|| panic!("ended by signal {signal:?}: {self:#?}"))
    }

    /// It ended with exit code 0 and had nothing to complain about.
    #[track_caller]
    pub(crate) fn assert_clean(&self) -> &Self {
        assert_eq!((self.code(), self.stderr.as_str()), (0, ""), "{self:#?}");
        self
    }

    /// The guest's output was `expected`, and nothing more.
    #[track_caller]
    pub(crate) fn assert_stdout(&self, expected: &str) -> &Self {
        assert_eq!(self.stdout, expected, "{self:#?}");
        self
    }

    /// It refused to run: exit code `code`, nothing on stdout, one line on stderr that begins with `rvmm: ` and has
    /// every one of `words`.
    #[track_caller]
    pub(crate) fn assert_refused(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code(), code, "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        self.assert_complaint(words)
    }

    /// It had one thing to say on stderr: a line that begins with `rvmm: ` and has every one of `words`.
    #[track_caller]
    pub(crate) fn assert_complaint(&self, words: &[&str]) -> &Self {
        assert_eq!(self.stderr.lines().count(), 1, "one line: {self:#?}");
        assert!(self.stderr.starts_with("rvmm: ") && self.stderr.ends_with('\n'), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:#?}");
        }
        self
    }
}
