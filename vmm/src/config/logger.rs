//! `logger`: what the VMM logs, and where to.

use std::path::PathBuf;

use log::LevelFilter;
use serde::{Deserialize, Serialize};

/// `logger`: what is absent stays as the options of the command line, or an earlier request, set it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggerConfig {
    /// File or named pipe that lines are appended to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_path: Option<PathBuf>,
    /// Records of this level and the more severe ones are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Lines have their level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_level: Option<bool>,
    /// Lines have the source file and line that they come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_log_origin: Option<bool>,
    /// Only records of modules whose path begins so are written, such as `vmm::boot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

impl LoggerConfig {
    /// This configuration with what `newer` says laid over it.
    #[must_use]
    pub fn updated(self, newer: Self) -> Self {
        Self {
            log_path: newer.log_path.or(self.log_path),
            level: newer.level.or(self.level),
            show_level: newer.show_level.or(self.show_level),
            show_log_origin: newer.show_log_origin.or(self.show_log_origin),
            module: newer.module.or(self.module),
        }
    }
}

/// How severe a record is; on the wire in any case, and `Warn` is `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What cannot be done.
    Error,
    /// What may be wrong.
    Warning,
    /// What happens.
    Info,
    /// How it happens.
    Debug,
    /// All of it.
    Trace,
}

impl TryFrom<String> for LogLevel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" | "warning" => Self::Warning,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => {
                return Err(format!("level {text:?}: expected Off, Error, Warning, Info, Debug or Trace"));
            }
        })
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warning => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_any_case() {
        for (text, level) in
            [("Warning", LogLevel::Warning), ("WARN", LogLevel::Warning), ("off", LogLevel::Off)]
        {
            let json = format!(r#"{{"level": "{text}"}}"#);
            assert_eq!(serde_json::from_str::<LoggerConfig>(&json).unwrap().level, Some(level));
        }
        let error = serde_json::from_str::<LoggerConfig>(r#"{"level": "loud"}"#).unwrap_err().to_string();
        assert!(error.contains("\"loud\"") && error.contains("Trace"), "{error}");
    }
}
