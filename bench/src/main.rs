//! `rvmm bench`: microVMs and containers compared by measurement, and rvmm's own figures.
//!
//! A program of its own beside `rvmm`, which starts it, so that what draws charts is not in every VM's process (ADR 15).

mod args;
mod compare;
mod input;
mod output;
mod own;
mod probe;
mod report;
mod results;
mod usage;

use std::process::ExitCode;

use args::Verb;

fn main() -> ExitCode {
    // A contender's root file system has this program too, and nothing else that it could need.
    if let Some(words) = probe::asked() {
        return probe::run(&words);
    }
    let outcome = match args::parse() {
        Verb::Compare(args) => compare::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Schema => report::print_schema(),
        Verb::Keep { folder, detach } => compare::keeper::run(&folder, detach).map(|()| ExitCode::SUCCESS),
        Verb::Startup(args) => own::startup::run(&args),
        Verb::Restore(args) => own::restore::run(&args),
        Verb::Io(args) => own::io::run(&args),
        Verb::Api(args) => own::api::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        if let Some(usage) = error.downcast_ref::<usage::Usage>() {
            eprintln!("rvmm bench: {usage}");
            return ExitCode::from(usage::EXIT_CODE);
        }
        // It may have words of a file, or of a program, in it.
        let visible =
            |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
        eprintln!("rvmm bench: error: {}", format!("{error:#}").chars().map(visible).collect::<String>());
        ExitCode::FAILURE
    })
}
