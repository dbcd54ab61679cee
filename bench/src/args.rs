//! The command line.

mod api;
mod io;
mod restore;
mod startup;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

pub(crate) use api::ApiArgs;
pub(crate) use io::{Group, IoArgs};
pub(crate) use restore::RestoreArgs;
pub(crate) use startup::StartupArgs;

/// Shown at the end of the help of `rvmm bench compare`.
const COMPARE_EXAMPLES: &str = "Examples:
  rvmm bench compare --kernel vmlinux --html report.html
  rvmm bench compare --only process,runc,rvmm-restored --kernel vmlinux --runs 40 --json result.json
  rvmm bench report result.json --html report.html

Exit codes:
  0  it was measured; a contender that failed is listed with its error
  1  it could not be measured at all
  2  the command line is wrong
  130, 143  Ctrl-C or SIGTERM ended it; what was measured until then is kept and reported";

/// Measures microVMs and containers side by side, and rvmm itself.
#[derive(Debug, Parser)]
#[command(
    name = "rvmm bench",
    bin_name = "rvmm bench",
    version,
    disable_help_subcommand = true,
    max_term_width = 110
)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Compare a process, containers and microVMs on this host: start, memory, density, work, isolation.
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// Removes what is left of a comparison when its standard input ends; `compare` starts it.
    #[command(hide = true)]
    Keep {
        /// The comparison's folder.
        folder: PathBuf,
        /// In the background.
        #[arg(long)]
        detach: bool,
    },
    /// How fast a VM starts and how little it needs, against a minimal C program, other VMMs and containers.
    #[command(after_help = startup::EXAMPLES)]
    Startup(StartupArgs),
    /// How fast snapshots are written and restored, and what clones cost, against Firecracker.
    #[command(after_help = restore::EXAMPLES)]
    Restore(RestoreArgs),
    /// How fast a Linux guest's disk, network and vsock are, against Firecracker or QEMU.
    #[command(after_help = io::EXAMPLES)]
    Io(IoArgs),
    /// How fast the REST socket is and how little it needs, against Firecracker.
    #[command(after_help = api::EXAMPLES)]
    Api(ApiArgs),
}

/// `rvmm bench compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Starts of each contender, in turns, after two to warm up.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,

    /// Only these contenders; "help" lists them.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Only these measurements: start, memory, density, work, isolation, portability.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) measure: Vec<Measure>,

    /// A static program to start, in place of the built-in one. It is run as FILE start, and prints "rvmm-bench: started".
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) workload: Option<PathBuf>,

    /// A small guest kernel with its drivers built in (vmlinux), for every VMM.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,

    /// A distribution's kernel, for rvmm.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) stock_kernel: Option<PathBuf>,

    /// Its initial RAM disk, which mounts root= and starts init=.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) stock_initrd: Option<PathBuf>,

    /// Memory of a guest, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(64..=65_536))]
    pub(crate) guest_memory: u64,

    /// The most instances at a time, for the density curve.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_instances: u32,

    /// The most memory that all instances may take together, in MiB [default: half of what is available].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=16_777_216))]
    pub(crate) memory_budget: Option<u64>,

    /// Seconds after which an instance is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,

    /// Where files are put while it runs; removed at the end.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value_os_t = std::env::temp_dir(), hide_default_value = true)]
    pub(crate) folder: PathBuf,

    /// Write every sample to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,

    /// Write the report to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,

    /// Write a line for each sample to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) csv: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Measure {
    /// Time and processor time of starts.
    Start,
    /// Memory of one instance that idles.
    Memory,
    /// Instances side by side.
    Density,
    /// Work inside.
    Work,
    /// What is isolated.
    Isolation,
    /// What it takes along.
    Portability,
}

impl CompareArgs {
    /// Whether `measure` is wanted.
    pub(crate) fn wants(&self, measure: Measure) -> bool {
        self.measure.is_empty() || self.measure.contains(&measure)
    }
}

/// Parses this process's command line, and ends the process where it is wrong or asks for help.
pub(crate) fn parse() -> Verb {
    CommandLine::parse().verb
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_goes_with_linux_guests_only_is_refused_without_them() {
        for words in [
            "restore --counted",
            "restore --kernel k",
            "restore --linux --json r",
            "io --seconds 0",
            "io --only tap",
        ] {
            let line = ["rvmm bench"].into_iter().chain(words.split(' '));
            assert!(CommandLine::try_parse_from(line).is_err(), "{words}");
        }
    }
}
