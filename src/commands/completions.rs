//! `rvmm completions SHELL`

use super::{Outcome, print};
use crate::args::{self, CompletionsArgs};

/// Prints the completion script of a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "rvmm", &mut script);
    print(&script)
}
