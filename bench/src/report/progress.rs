//! How far a comparison is: a line on standard error while it runs, if that is a terminal.
//!
//! It is drawn between measurements only, and by no thread of its own, so that it does not disturb them.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What it looks like: what is measured, how far that is, who has its turn.
const STYLE: &str = "{prefix:>11} {wide_bar} {pos}/{len} {msg} {elapsed}";

/// A measurement that goes on. Its line is gone when this is.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A measurement of `total` turns begins. The one before has to be gone.
    pub(crate) fn phase(name: &str, total: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(name.to_owned());
        Self { bar }
    }

    /// The turn of `contender` begins; the one before it has ended.
    pub(crate) fn tick(&self, contender: &str) {
        if !self.bar.message().is_empty() {
            self.bar.inc(1);
        }
        self.bar.set_message(format!("{contender:<16}"));
        self.bar.tick();
    }

    /// One is given up, and so many turns will not come.
    pub(crate) fn shorten(&self, turns: usize) {
        self.bar.set_length(self.bar.length().unwrap_or_default().saturating_sub(turns as u64));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
