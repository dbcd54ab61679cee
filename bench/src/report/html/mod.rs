//! The report as one HTML file, which refers to nothing outside of it and runs nothing.

mod canvas;
mod charts;
mod colour;
mod lines;
mod rows;
mod scale;
#[cfg(test)]
mod tests;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::results::Results;

use super::figures::{self, Figures};
use super::tables::{self, Table};
use super::{isolation, summary, words};

/// Browsers shall not load or run anything, whatever the results have in them.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// A part of the page.
struct Section {
    /// For links.
    id: &'static str,
    title: &'static str,
    content: Markup,
}

/// The page.
///
/// # Errors
/// A chart cannot be drawn.
pub(crate) fn page(results: &Results) -> anyhow::Result<String> {
    let figures = Figures::new(results);
    let sections = sections(&figures)?;
    let host = &results.host;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="color-scheme" content="light dark";
                title { "Processes, containers and microVMs, measured" }
                style { (PreEscaped(colour::style())) (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    @if let Some(warning) = host.warning() {
                        p.warning-box role="note" { strong { "Read this first: " } (warning) "." }
                    }
                    h1 { "Processes, containers and microVMs, measured" }
                    p.faint {
                        (words::date(results.began)) " · " (host.cpus) " × " (host.cpu) " · " (host.system) ", Linux " (host.kernel) " · rvmm "
                        (results.version)
                    }
                    @for remark in figures.remarks() { p.warning-box role="note" { (remark) } }
                    nav aria-label="Parts of the report" {
                        @for section in &sections { a href={ "#" (section.id) } { (section.title) } }
                    }
                    @for section in &sections {
                        section id=(section.id) aria-label=(section.title) {
                            h2 { (section.title) }
                            (section.content)
                        }
                    }
                    footer.faint { p { "Made by rvmm bench " (results.version) ". The figures are this host's, and say nothing of others." } }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn sections(figures: &Figures<'_>) -> anyhow::Result<Vec<Section>> {
    let mut sections = vec![Section { id: "summary", title: "Summary", content: in_words(figures) }];
    let mut add = |id, title, content: Markup| {
        if !content.0.is_empty() {
            sections.push(Section { id, title, content });
        }
    };
    add("start", "Start", start(figures)?);
    add("memory", "Memory", memory(figures)?);
    add("density", "Density", density(figures)?);
    add("work", "Work", work(figures)?);
    add("isolation", "Isolation", isolated(figures));
    add("portability", "Portability and effort", table(&tables::portability(figures), Layout::Cards));
    add("absent", "Failed, missing or left out", table(&tables::absent(figures), Layout::Cards));
    add("host", "Host and settings", table(&tables::host(figures), Layout::Pair));
    add("repeat", "To repeat it", repeat(figures));
    Ok(sections)
}

fn in_words(figures: &Figures<'_>) -> Markup {
    let paragraphs = summary::summary(figures);
    html! {
        @if paragraphs.is_empty() { p { "Nothing was measured." } }
        dl.summary {
            @for paragraph in paragraphs {
                dt { (paragraph.topic) }
                dd { @for sentence in paragraph.sentences { p { (sentence) } } }
            }
        }
        p.faint { (summary::METHOD) }
    }
}

fn start(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let (starts, parts) = (tables::start(figures), tables::parts(figures));
    if starts.is_empty() {
        return Ok(Markup::default());
    }
    Ok(html! {
        p { (capital_definition(&figures.results.definition)) }
        (charts::start(figures)?)
        @if let Some(yardstick) = figures.yardstick_words() { p.faint { "Ratios are to " (yardstick) ", run by run." } }
        (table(&starts, Layout::Cards))
        @if !parts.is_empty() {
            h3 { "Parts of a VM's start" }
            (charts::parts(figures)?)
            (folded(&parts))
        }
    })
}

/// The definition as a sentence.
fn capital_definition(definition: &str) -> Markup {
    html! { @match definition.split_once(": ") {
        Some((word, rest)) => { strong { (word) } ": " (rest) "." },
        None => (definition),
    } }
}

fn memory(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let memory = tables::memory(figures);
    if memory.is_empty() {
        return Ok(Markup::default());
    }
    Ok(html! {
        p { "Proportional set size of every process that one idle instance needs, shims and monitors included. Pages that several processes \
             share count in parts." }
        (charts::memory(figures)?)
        (folded(&memory))
    })
}

fn density(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let density = tables::density(figures);
    if density.is_empty() {
        return Ok(Markup::default());
    }
    Ok(html! {
        p { "Idle instances side by side: what each takes, and how many start in a second." }
        h3 { "Memory for each instance" }
        (charts::density(figures)?)
        h3 { "Starts in a second, all at once" }
        (charts::rates(figures)?)
        (folded(&density))
    })
}

fn work(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let all: Vec<_> =
        figures.work_names().into_iter().map(|name| (name, tables::work(figures, name))).collect();
    let mut content = Markup::default();
    for (name, work) in all.iter().filter(|(_, work)| !work.is_empty()) {
        let part = html! {
            h3 { (figures::work_title(name)) }
            @if figures.process.is_some() { (charts::work(figures, name)?) }
            (folded(work))
        };
        content.0.push_str(&part.0);
    }
    Ok(content)
}

fn isolated(figures: &Figures<'_>) -> Markup {
    let kernels = isolation::kernels(figures);
    if kernels.is_empty() {
        return Markup::default();
    }
    html! {
        p { "What a program inside found, and what was seen of the instance from outside." }
        h3 { "Kernels" }
        (table(&kernels, Layout::Cards))
        h3 { "Rights and leaks" }
        (table(&isolation::rights(figures), Layout::Cards))
        @for part in [isolation::leaks(figures), isolation::lists(figures), isolation::calls(figures)] { (folded(&part)) }
    }
}

fn repeat(figures: &Figures<'_>) -> Markup {
    html! {
        p { "The same comparison again:" }
        pre { (words::command(&figures.results.command)) }
        (table(&tables::commands(figures), Layout::Cards))
    }
}

/// What becomes of a table on a phone.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Layout {
    /// A card for each row.
    Cards,
    /// A name and its value, under each other.
    Pair,
    /// It scrolls in its own box.
    Scroll,
}

/// A table that is opened by who wants it.
fn folded(content: &Table) -> Markup {
    let layout = if content.figures { Layout::Scroll } else { Layout::Cards };
    html! { @if !content.is_empty() { details { summary { "Table: " (content.title) } (table(content, layout)) } } }
}

fn table(content: &Table, layout: Layout) -> Markup {
    let class = match (layout, content.figures) {
        (Layout::Cards, true) => "cards figures",
        (Layout::Cards, false) => "cards",
        (Layout::Pair, _) => "cards pair",
        (Layout::Scroll, true) => "figures",
        (Layout::Scroll, false) => "",
    };
    let words = |head: &str| content.in_words(head).then_some("words");
    html! { @if !content.is_empty() {
        @if !content.note.is_empty() { p.faint { (content.note) } }
        div.scroll role="region" tabindex="0" aria-label=(content.title) {
            table.(class) {
                @if layout != Layout::Pair {
                    thead { tr { @for head in &content.head { th scope="col" class=[words(head)] { (head) } } } }
                }
                tbody {
                    @for row in &content.rows {
                        tr {
                            @for (cell, head) in row.iter().zip(&content.head).take(1) { th scope="row" data-head=(head) { (cell) } }
                            @for (cell, head) in row.iter().zip(&content.head).skip(1) {
                                td data-head=(head) class=[words(head)] { @if !cell.is_empty() { (Cell(cell)) } }
                            }
                        }
                    }
                }
            }
        }
    } }
}

/// A word of more characters may be broken anywhere, so that it does not widen its table.
const LONG: usize = 20;

/// A cell, as one element, so that a card has two columns.
struct Cell<'a>(&'a str);

impl maud::Render for Cell<'_> {
    fn render(&self) -> Markup {
        let long = self.0.split_whitespace().any(|word| word.chars().count() > LONG).then_some("long");
        html! { span class=[long] { (self.0) } }
    }
}
