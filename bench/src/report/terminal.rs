//! The report for a terminal, or a file of plain text.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, TableStyle};

use crate::results::Results;

use super::figures::Figures;
use super::tables::{self, Table};
use super::{isolation, summary, words};

/// The narrowest that tables are made.
const LEAST_WIDTH: u16 = 60;

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
    text
}

fn drawn(table: &Table, width: u16) -> String {
    let mut drawing = comfy_table::Table::new();
    drawing.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    drawing.set_header(&table.head);
    for row in &table.rows {
        drawing.add_row(row);
    }
    if table.figures {
        for (column, head) in drawing.column_iter_mut().zip(&table.head).skip(1) {
            if !table.in_words(head) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    drawing.to_string()
}
