//! Options for what watches and steers a VM from outside.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// How others reach the VM while it runs.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Listen on a unix socket for REST requests: watch, pause and change the VM while it runs.
    #[arg(long, value_name = "PATH", help_heading = "Control", value_hint = ValueHint::FilePath)]
    pub(crate) api_sock: Option<PathBuf>,

    /// Append a line of metrics, as JSON, to a file or named pipe every minute and at the end.
    #[arg(long, value_name = "FILE", help_heading = "Control", value_hint = ValueHint::FilePath)]
    pub(crate) metrics_path: Option<PathBuf>,
}
