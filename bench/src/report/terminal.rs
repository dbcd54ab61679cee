//! The report for a terminal, or a file of plain text.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, TableStyle, Width};

use crate::results::Results;

use super::figures::Figures;
use super::tables::{self, Table};
use super::{isolation, summary, words};

/// The narrowest that tables are made.
const LEAST_WIDTH: u16 = 60;

/// In lines of fewer characters, tables have the names of contenders in place of their titles.
const NARROW: u16 = 110;

/// A contender's name of more characters is broken where lines are narrow.
const BRIEF: usize = 11;

/// The fewest characters that a row's name is left.
const NAME: usize = 8;

/// A line below the heads, and at the end.
const STYLE: TableStyle = TableStyle::new()
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// The report, for lines of `width` characters.
pub(crate) fn text(results: &Results, width: u16) -> String {
    let figures = Figures::new(results);
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut line = |words: &str| {
        let _ = writeln!(text, "{words}");
    };
    if let Some(warning) = results.host.warning() {
        line(&format!("warning: {warning}"));
    }
    line(&results.definition);
    if let Some(yardstick) = figures.yardstick_words() {
        line(&format!("ratios: to {yardstick}, run by run; in brackets the middle half of them"));
    }
    for remark in figures.remarks() {
        line(&format!("note: {remark}"));
    }
    let mut tables = vec![
        tables::start(&figures),
        tables::parts(&figures),
        tables::memory(&figures),
        tables::density(&figures),
    ];
    tables.extend(figures.work_names().into_iter().map(|name| tables::work(&figures, name)));
    tables.extend([
        isolation::kernels(&figures),
        isolation::rights(&figures),
        tables::portability(&figures),
        tables::absent(&figures),
        tables::host(&figures),
    ]);
    if width < NARROW {
        brief(&mut tables, results);
        let names = results.contenders.iter().filter(|contender| contender.name != contender.title);
        let names: Vec<_> =
            names.map(|contender| format!("{}: {}", contender.name, contender.title)).collect();
        line(&format!("names in the tables: {}", names.join("; ")));
    }
    for table in tables.iter().filter(|table| !table.is_empty()) {
        line(&format!("\n{}", table.title));
        if !table.note.is_empty() {
            line(table.note);
        }
        line(&drawn(table, width.max(LEAST_WIDTH)));
    }
    for paragraph in summary::summary(&figures) {
        line(&format!("\n{}: {}", paragraph.topic, paragraph.sentences.join(" ")));
    }
    line(&format!("\n{}", summary::METHOD));
    line(&format!("to repeat it: {}", words::command(&results.command)));
    // Whoever searches the text has spaces of the usual kind.
    text.replace(words::NO_BREAK, " ")
}

/// Names rows by the contenders' names, which are shorter than their titles.
fn brief(tables: &mut [Table], results: &Results) {
    let rows = tables.iter_mut().flat_map(|table| &mut table.rows);
    for first in rows.filter_map(|row| row.first_mut()) {
        if let Some(contender) = results.contenders.iter().find(|contender| contender.title == *first) {
            let long = contender.name.len() > BRIEF;
            *first = if long { contender.name.replacen('-', "-\n", 1) } else { contender.name.clone() };
        }
    }
}

fn drawn(table: &Table, width: u16) -> String {
    let mut drawing = comfy_table::Table::new();
    drawing.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    drawing.set_header(&table.head);
    for row in &table.rows {
        drawing.add_row(row);
    }
    for (column, head) in drawing.column_iter_mut().zip(&table.head) {
        column.set_padding((padding(width), padding(width)));
        if table.figures && !head.is_empty() && !table.in_words(head) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    keep_whole(&mut drawing, table, width);
    drawing.to_string()
}

/// Spaces at both sides of a cell.
fn padding(width: u16) -> u16 {
    u16::from(width >= NARROW)
}

/// Lets no figure and no word of a head break inside of it, where the lines have room for that.
fn keep_whole(drawing: &mut comfy_table::Table, table: &Table, width: u16) {
    // What a column is wide holds its padding; between columns is a space.
    let padding = 2 * usize::from(padding(width));
    let longest = |text: &String| text.split(' ').map(|word| word.chars().count()).max().unwrap_or_default();
    let least = |at: usize, head: &String| {
        let cells = table.rows.iter().filter_map(|row| row.get(at)).map(longest);
        let cells = cells.max().unwrap_or_default();
        let words = !table.figures || table.in_words(head);
        padding + if words { longest(head) } else { cells.max(longest(head)) }
    };
    let mut all: Vec<_> = table.head.iter().enumerate().skip(1).map(|(at, head)| least(at, head)).collect();
    let taken = all.iter().map(|least| least + 1).sum();
    let Some(room) = usize::from(width).checked_sub(taken).filter(|&room| room >= NAME) else {
        return;
    };
    let names = table.rows.iter().filter_map(|row| row.first()).flat_map(|name| name.lines());
    let longest = names.map(|name| padding + name.chars().count()).max().unwrap_or_default();
    all.insert(0, longest.min(if table.figures { room } else { NAME }));
    for (column, least) in drawing.column_iter_mut().zip(all) {
        let least = u16::try_from(least).unwrap_or(width);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
}
