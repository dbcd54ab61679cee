//! `rvmm completions SHELL`

use clap_complete::Shell;

use super::{Outcome, print};
use crate::args::{self, CompletionsArgs};

/// Prints the completion script of a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    print(&script(args.shell))
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "rvmm", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_options_and_verbs() {
        use clap::ValueEnum as _;
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for word in ["log-file", "on-reset", "doctor"] {
                assert!(script.contains(word), "{shell}: {word} is missing");
            }
        }
    }
}
