//! How far a benchmark is, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `steps`, on standard error if that is a terminal. It is drawn between runs only, so that no run pays for it.
pub(crate) fn bar(what: &str, steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}
