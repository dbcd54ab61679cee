//! The probe: what this program does inside a contender. It looks around without touching anything, and prints what it saw.
//!
//! It knows nothing of the host, and judges nothing: the benchmark takes the same look at the host and compares. What could
//! hurt a kernel is tried only with a [`Permit`], which is given out in a guest of our own and nowhere else.

mod harm;
mod kernel_log;
mod permit;
mod sight;

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

pub(crate) use harm::{Trial, Trials};
pub(crate) use sight::{Sight, boot_id};

use permit::{Permit, Situation};

/// The first word of the command line that asks for it.
pub(crate) const VERB: &str = "probe";

/// The second, where it is to try what can't hurt more than the guest's own clock and modules; the host's boot id follows.
pub(crate) const TRY: &str = "try";

/// The second, where it is to raise a kernel panic; the host's boot id follows.
pub(crate) const PANIC: &str = "panic";

/// Begins the line with a [`Sight`] in JSON.
pub(crate) const SIGHT: &str = "rvmm-probe: sight ";

/// Begins the line with [`Trials`] in JSON.
pub(crate) const TRIALS: &str = "rvmm-probe: trials ";

/// Begins the line that says why nothing is tried.
pub(crate) const REFUSED: &str = "rvmm-probe: refused ";

/// The line before the panic.
pub(crate) const GOING: &str = "rvmm-probe: going to panic";

/// The line after it, if the kernel went on.
pub(crate) const ALIVE: &str = "rvmm-probe: still alive";

/// The words after [`VERB`], if this program was started as the probe.
pub(crate) fn asked() -> Option<Vec<String>> {
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    (words.next()? == VERB).then(|| words.collect())
}

/// Does what `words` say.
pub(crate) fn run(words: &[String]) -> ExitCode {
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => print_json(SIGHT, &Sight::look()),
        [TRY, host] => {
            print_json(SIGHT, &Sight::look());
            if let Some(permit) = permitted(host) {
                print_json(TRIALS, &harm::attempt(&permit));
            }
        }
        [PANIC, host] => {
            if let Some(permit) = permitted(host) {
                print(GOING);
                let why = harm::raise_panic(&permit);
                print(&format!("{ALIVE} {why}"));
            }
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// A permit, or a line that says why there is none.
fn permitted(host: &str) -> Option<Permit> {
    match permit::ask(host, &Situation::read()) {
        Ok(permit) => Some(permit),
        Err(why) => {
            print(&format!("{REFUSED}{why}"));
            None
        }
    }
}

fn print_json(marker: &str, value: &impl Serialize) {
    print(&format!("{marker}{}", serde_json::to_string(value).unwrap_or_default()));
}

/// Prints a line in one piece, after an end of line: a console may have printed something before.
fn print(line: &str) {
    let mut output = std::io::stdout().lock();
    // Who doesn't read it doesn't want it.
    let _ = output.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| output.flush());
}
