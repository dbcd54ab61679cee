//! How far a benchmark is, on a terminal.

use std::env;

use indicatif::{ProgressBar, ProgressStyle};

/// Set where the terminal is that of another program, which waits for this one on the emulated host.
pub(crate) const AFAR: &str = "RVMM_BENCH_TERMINAL_AFAR";

/// A bar of `steps`, on standard error if that is a terminal. It is drawn between runs only, so that no run pays for it.
pub(crate) fn bar(what: &str, steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// Says `line` above the bar, to those who watch.
pub(crate) fn say(bar: &ProgressBar, line: &str) {
    if env::var_os(AFAR).is_some() {
        eprintln!("{line}");
    } else {
        bar.println(line);
    }
}
