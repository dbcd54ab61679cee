//! `rvmm man`

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Outcome, print};
use crate::args;

/// Prints the manual page, rvmm(1), as roff.
pub(crate) fn run() -> Outcome {
    print(&page()?)
}

fn page() -> io::Result<Vec<u8>> {
    let command = args::command();
    let mut verbs = Roff::new();
    verbs.control("SH", ["COMMANDS"]);
    // Complete, so that arguments can be shown.
    let mut built = command.clone();
    built.build();
    for verb in built.get_subcommands() {
        describe("rvmm", verb, &mut verbs);
    }

    let mut page = Vec::new();
    let man = Man::new(command);
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_options_section(&mut page)?;
    verbs.to_writer(&mut page)?;
    as_it_stands("EXAMPLES", args::EXAMPLES).to_writer(&mut page)?;
    as_it_stands("EXIT STATUS", args::EXIT_CODES).to_writer(&mut page)?;
    as_it_stands("NOTES", args::NOTES).to_writer(&mut page)?;
    Ok(page)
}

/// Adds what a verb does, takes and knows as options, but for those that every command has; and the verbs below it.
fn describe(above: &str, verb: &clap::Command, page: &mut Roff) {
    let text =
        |styled: Option<&clap::builder::StyledStr>| styled.map(ToString::to_string).unwrap_or_default();
    let takes: Vec<String> = verb.get_positionals().map(|argument| format!(" {argument}")).collect();
    let name = format!("{above} {}", verb.get_name());
    page.control("TP", []).text([bold(format!("{name}{}", takes.concat()))]);
    page.text([roman(text(verb.get_about()))]);
    for option in verb.get_arguments().filter(|option| !option.is_positional()) {
        if !matches!(option.get_id().as_str(), "help" | "version") {
            page.control("br", [])
                .text([bold(option.to_string()), roman(format!(": {}", text(option.get_help())))]);
        }
    }
    for below in verb.get_subcommands() {
        describe(&name, below, page);
    }
}

/// A section whose lines are not filled.
fn as_it_stands(title: &str, lines: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]).control("nf", []);
    for line in lines.lines() {
        section.text([roman(line.trim_start())]);
    }
    section.control("fi", []);
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_option_and_verb() {
        let page = String::from_utf8(page().unwrap()).unwrap().replace("\\-", "-");
        let command = args::command();
        assert_has("rvmm", &command, &page);
    }

    fn assert_has(name: &str, command: &clap::Command, page: &str) {
        assert!(page.contains(name), "{name} is missing");
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{option}")), "{name} --{option} is missing");
        }
        for verb in command.get_subcommands() {
            assert_has(&format!("{name} {}", verb.get_name()), verb, page);
        }
    }

    #[test]
    fn the_options_of_a_run_and_the_verbs_are_explained_where_the_command_line_is() {
        let text = include_str!("../../docs/command-line.md");
        let command = args::command();
        let options = command.get_arguments().filter_map(|option| Some(format!("`--{}", option.get_long()?)));
        for option in options.filter(|option| !matches!(option.as_str(), "`--help" | "`--version")) {
            let ends = |rest: &str| rest.starts_with(['`', ' ']);
            let explained = text.match_indices(&option).any(|(at, _)| ends(&text[at + option.len()..]));
            assert!(explained, "{option} is missing");
        }
        for verb in command.get_subcommands() {
            assert!(text.contains(verb.get_name()), "{} is missing", verb.get_name());
        }
    }
}
