//! Results may be somebody else's, and what failed programs said is in them: nothing in them drives a terminal, turns the direction of
//! writing, or makes a report without end.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::Value;

use crate::results::Results;

#[path = "../../../src/escape.rs"]
mod escape;

use escape::Escape;

/// The most characters of one text that are shown.
const MOST_CHARACTERS: usize = 2000;

/// The most entries of one list that are shown: as many as there can be runs.
const MOST_ENTRIES: usize = 10_000;

/// The most contenders that are shown.
const MOST_CONTENDERS: usize = 40;

/// A copy of `results` that can be shown: each text is fit for a terminal, and no text or list is too long.
///
/// # Errors
/// They cannot be copied.
pub(crate) fn cleaned(results: &Results) -> anyhow::Result<Results> {
    let mut left_out = 0;
    // By way of JSON, so that no field is forgotten.
    let mut value = serde_json::to_value(results).context("the results cannot be shown")?;
    if let Some(Value::Array(contenders)) = value.get_mut("contenders") {
        cut(contenders, MOST_CONTENDERS, &mut left_out);
    }
    clean(&mut value, &mut left_out);
    let mut results: Results = serde_json::from_value(value).context("the results cannot be shown")?;
    if left_out > 0 {
        results.notes.push(format!("{left_out} entries of lists that are too long are not shown"));
    }
    Ok(results)
}

fn clean(value: &mut Value, left_out: &mut usize) {
    match value {
        Value::String(text) => *text = plain(text),
        Value::Array(entries) => {
            cut(entries, MOST_ENTRIES, left_out);
            for entry in entries {
                clean(entry, left_out);
            }
        }
        Value::Object(fields) => {
            for field in fields.values_mut() {
                clean(field, left_out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn cut(entries: &mut Vec<Value>, most: usize, left_out: &mut usize) {
    *left_out += entries.len().saturating_sub(most);
    entries.truncate(most);
}

/// `text`, fit for a terminal and not too long.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::new();
    let _ = Escape(&mut shown).write_str(&super::words::short(text, MOST_CHARACTERS));
    shown
}
