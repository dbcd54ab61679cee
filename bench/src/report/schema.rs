//! The JSON schema of results.

use std::io::{self, Write as _};
use std::process::ExitCode;

use schemars::generate::SchemaSettings;

use crate::results::Results;

/// The schema, draft 2020-12, as text.
///
/// # Errors
/// It cannot be put into words.
pub(crate) fn text() -> anyhow::Result<String> {
    let schema =
        SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Results>();
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

/// Prints it.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print() -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text()?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
