//! Why parsing ended without something to do: help was asked for, or the command line is wrong.

use std::error::Error;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};

const MEND: &str = "see rvmm --help";

/// What to print instead of running.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// The user asked for this text: print it, exit 0.
    Text(String),
    /// The command line is wrong: one line for stderr, exit 2.
    Usage(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Text(text) | Self::Usage(text)) = self;
        formatter.write_str(text)
    }
}

impl Error for Stop {}

impl Stop {
    pub(super) fn usage(message: &str) -> Self {
        Self::Usage(format!("{message} ({MEND})"))
    }

    pub(super) fn from_clap(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Self::Text(format!("{}\n", text.trim_end()))
            }
            // clap takes any further word for a verb, and would say that this one cannot stand beside options.
            ErrorKind::ArgumentConflict => match stray_word(error) {
                Some(word) => Self::usage(&format!("'{word}' is neither an option nor a command")),
                None => Self::usage(&one_line(&text)),
            },
            _ => Self::usage(&one_line(&text)),
        }
    }
}

/// The word that was taken for a verb and is none.
fn stray_word(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(word) if super::command().find_subcommand(word).is_none() => Some(word),
        _ => None,
    }
}

/// clap's report is a paragraph with the finding, one for each tip, the usage and a hint at `--help`. Keeps the
/// finding and the tips.
fn one_line(report: &str) -> String {
    let report = report.strip_prefix("error: ").unwrap_or(report);
    let kept = report.split("\n\n").map(str::trim).filter(|paragraph| {
        !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
    });
    let mut line = String::new();
    for paragraph in kept.flat_map(str::lines).map(str::trim).filter(|text| !text.is_empty()) {
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') { " " } else { "; " });
        }
        line.push_str(paragraph.strip_prefix("tip: ").unwrap_or(paragraph));
    }
    line
}
