//! The options of `rvmm bench restore`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Shown at the end of its help.
pub(crate) const EXAMPLES: &str = "Examples:
  rvmm bench restore
  rvmm bench restore --folder /var/tmp --json result.json
  rvmm bench restore --linux --kernel vmlinux --rootfs disk.ext4
  rvmm bench restore --linux --counted --runs 9

Without --kernel and --rootfs, RVMM_KERNEL_SMALL and RVMM_ROOTFS in the environment name them, or, in \
rvmm's source tree, resources/small-kernel and resources/busybox-rootfs make them. FIRECRACKER names \
Firecracker, where it is not on PATH; RVMM_PROGRAM names the rvmm to measure, where it is not the one \
that `rvmm bench` was asked of.";

/// `rvmm bench restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Restores and snapshots of each VMM that are timed, in turns, after three to warm up.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) runs: u32,

    /// Clones of one snapshot.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) clones: u32,

    /// Where snapshots are written [default: /dev/shm if it is there, whose files are memory].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: Option<PathBuf>,

    /// Write everything to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,

    /// Instead, a Linux guest that is restored against containers that are started (crun, runc), on the emulated host where
    /// Linux guests do not run here.
    #[arg(long, conflicts_with_all = ["clones", "folder", "json"])]
    pub(crate) linux: bool,

    /// On an emulated host whose clock counts instructions.
    #[arg(long, requires = "linux")]
    pub(crate) counted: bool,

    /// The Linux guest's kernel, with its drivers built in.
    #[arg(long, requires = "linux", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,

    /// Its root disk, whose init runs what rvmm.run= says.
    #[arg(long, requires = "linux", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) rootfs: Option<PathBuf>,
}
