//! The options of `rvmm bench startup`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Shown at the end of its help.
pub(crate) const EXAMPLES: &str = "Examples:
  rvmm bench startup
  rvmm bench startup --runs 200 --only rvmm --json result.json
  rvmm bench startup --devices --runs 200

FIRECRACKER=PROGRAM in the environment names Firecracker, where it is not on PATH; RVMM_PROGRAM names \
the rvmm to measure, where it is not the one that `rvmm bench` was asked of.";

/// `rvmm bench startup`
#[derive(Debug, Args)]
pub(crate) struct StartupArgs {
    /// Starts of each contender, in turns, after three to warm up.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) runs: u32,

    /// Only contenders whose name has this text, and the minimal C program; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,

    /// What each device adds to a start of rvmm, in place of other contenders.
    #[arg(long)]
    pub(crate) devices: bool,

    /// Write every run to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,
}
