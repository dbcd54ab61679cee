//! The options of `rvmm bench io`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;

/// Shown at the end of its help.
pub(crate) const EXAMPLES: &str = "Examples:
  rvmm bench io
  rvmm bench io --only block --rounds 9 --json result.json
  rvmm bench io --counted --vmm pci

Without --kernel, --initrd and --rootfs, RVMM_KERNEL_6_12, RVMM_INITRD_6_12 and RVMM_TOOLS_ROOTFS in the \
environment name them, or, in rvmm's source tree, resources/debian-kernel, resources/initramfs and \
resources/tools-rootfs make them. FIRECRACKER names Firecracker, where it is not on PATH; RVMM_PROGRAM \
names the rvmm to measure, where it is not the one that `rvmm bench` was asked of.";

/// `rvmm bench io`
#[derive(Debug, Args)]
pub(crate) struct IoArgs {
    /// Times that each VMM's guest is booted and measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,

    /// Length of one measurement, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Only these devices [default: all that the measured rvmm has]; may be repeated.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub(crate) only: Vec<Group>,

    /// Only VMMs whose name has this text, such as rvmm or pci; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) vmm: Vec<String>,

    /// Write everything to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,

    /// Count system calls too, which slows all down a little.
    #[arg(long)]
    pub(crate) syscalls: bool,

    /// On the emulated host, with a clock that counts instructions: figures repeat, times are no times.
    #[arg(long)]
    pub(crate) counted: bool,

    /// CPUs of the emulated host; 1 with --counted.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,

    /// The guest's kernel, a distribution's.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,

    /// Its initial RAM disk, with the kernel's modules.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) initrd: Option<PathBuf>,

    /// Its root disk, which has blockload, vsockload and iperf3, and whose init runs what rvmm.run= says.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) rootfs: Option<PathBuf>,
}

/// Measurements that one boot of a guest makes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Group {
    /// Disks.
    Block,
    /// The network.
    Net,
    /// Streams between guest and host.
    Vsock,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 3600.0 => Ok(number),
        _ => Err("not a number above 0 and up to 3600".to_owned()),
    }
}
