//! Options for the log.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use vmm::config::{LogLevel as VmmLogLevel, LoggerConfig};

/// What is logged, and where to. Firecracker's names of the options work as well.
#[derive(Debug, Default, Args)]
pub(crate) struct LogArgs {
    /// What to log: off, error, warn, info, debug or trace, and everything before it [default: warn].
    #[arg(long, alias = "level", value_name = "LEVEL", help_heading = "Console and log", value_enum)]
    #[arg(ignore_case = true, hide_possible_values = true)]
    pub(crate) log_level: Option<LogLevel>,

    /// Append the log to a file or named pipe instead of stderr.
    #[arg(long, alias = "log-path", value_name = "FILE", help_heading = "Console and log")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) log_file: Option<PathBuf>,

    /// Log only what comes from modules whose path begins so, such as vmm::boot.
    #[arg(long = "log-module", alias = "module", value_name = "PATH", help_heading = "Console and log")]
    pub(crate) module: Option<String>,

    /// Have lines of the log name the source file and line that they come from.
    #[arg(long = "log-origin", alias = "show-log-origin", help_heading = "Console and log")]
    pub(crate) origin: bool,

    /// Firecracker's option; lines have their level anyway.
    #[arg(long, help_heading = "Console and log")]
    pub(crate) show_level: bool,
}

impl LogArgs {
    /// What the options say; the rest is left open.
    pub(crate) fn config(&self) -> LoggerConfig {
        LoggerConfig {
            log_path: self.log_file.clone(),
            level: self.log_level.map(VmmLogLevel::from),
            show_level: self.show_level.then_some(true),
            show_log_origin: self.origin.then_some(true),
            module: self.module.clone(),
        }
    }
}

/// `--log-level`
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    #[value(alias = "warning")]
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for VmmLogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warning,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}
