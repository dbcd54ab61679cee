//! The report: results as tables for a terminal, as an HTML page, as lines of CSV.

mod clean;
mod csv;
mod figures;
mod html;
mod isolation;
mod progress;
mod schema;
pub(crate) mod statistics;
mod summary;
mod tables;
mod terminal;
#[cfg(test)]
mod testdata;
#[cfg(test)]
mod tests;
mod words;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::args::ReportArgs;
use crate::output;
use crate::results::Results;

pub(crate) use progress::Progress;
pub(crate) use schema::print as print_schema;

/// Characters in a line, where the output is no terminal that says how many it has.
const LINE: u16 = 150;

/// Draws the results of a file again.
///
/// # Errors
/// The file has no results, or what was asked for cannot be written.
pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    // What a parser says of a file has words of that file in it.
    let results =
        Results::read(&args.file).map_err(|error| anyhow::Error::msg(clean::plain(&format!("{error:#}"))))?;
    draw(&results, args.html.as_deref(), args.csv.as_deref())?;
    if args.html.is_none() && args.csv.is_none() {
        print(&results)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the HTML page and the CSV lines to the files that are wanted.
///
/// # Errors
/// One of them cannot be written.
pub(crate) fn draw(results: &Results, html: Option<&Path>, csv: Option<&Path>) -> anyhow::Result<()> {
    let results = clean::cleaned(results)?;
    let page = html.map_or(Ok(()), |path| {
        let page = html::page(&results).context("the report cannot be drawn")?;
        output::write(path, page.as_bytes())
    });
    let lines = csv.map_or(Ok(()), |path| {
        let mut lines = Vec::new();
        csv::write(&results, &mut lines)?;
        output::write(path, &lines)
    });
    page.and(lines)
}

/// Prints the tables.
///
/// # Errors
/// Standard output cannot be written, other than that nobody reads it any more.
pub(crate) fn print(results: &Results) -> anyhow::Result<()> {
    let out = io::stdout();
    let width = if out.is_terminal() { console::Term::stdout().size().1 } else { LINE };
    let text = terminal::text(&clean::cleaned(results)?, width);
    match out.lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}
