//! The options of `rvmm bench api`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Shown at the end of its help.
pub(crate) const EXAMPLES: &str = "Examples:
  rvmm bench api
  FIRECRACKER=/path/to/firecracker rvmm bench api --runs 100 --json result.json

FIRECRACKER names Firecracker, where it is not on PATH; RVMM_PROGRAM names the rvmm to measure, where it \
is not the one that `rvmm bench` was asked of.";

/// `rvmm bench api`
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Processes of each VMM that are started and timed, and guests, after three to warm up.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) runs: u32,

    /// Requests over a connection that is kept, for each VMM.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) requests: u32,

    /// Write everything to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,
}
