//! Options of `rvmm snapshot` and `rvmm clone`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{ID, a_folder};

/// `rvmm snapshot`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(override_usage = "rvmm snapshot ID DIR [OPTIONS]\n       rvmm snapshot COMMAND")]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<SnapshotVerb>,
    #[command(flatten)]
    pub(crate) create: CreateArgs,
}

/// What is done with a snapshot that is there; and the longer form of making one.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Make one: the longer form, for a VM that is called as one of these commands.
    Create(CreateArgs),
    /// Print what is in a snapshot.
    Inspect(InspectArgs),
    /// Read all of a snapshot, and say whether it is as it was made.
    Verify(DirArgs),
    /// Make one snapshot of a diff and those that it is on top of.
    Merge(MergeArgs),
}

/// Whether a snapshot includes disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Disks {
    Reflink,
    Copy,
    None,
}

/// What is written, and how the VM goes on.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option without a value")]
pub(crate) struct CreateArgs {
    /// Name of the VM, or the beginning of it.
    #[arg(value_name = ID, required = true)]
    pub(crate) id: Option<String>,

    /// The folder to make, with the snapshot in it.
    #[arg(value_name = "DIR", required = true, value_hint = ValueHint::DirPath, value_parser = a_folder())]
    pub(crate) dir: Option<PathBuf>,

    /// Write only the pages of memory that were written since the VM's last snapshot, or since it was restored.
    #[arg(long)]
    pub(crate) diff: bool,

    /// Refuse the diff unless DIR is that snapshot; the VM knows it without being told, and says so in the diff.
    #[arg(long, value_name = "DIR", requires = "diff", value_hint = ValueHint::DirPath)]
    pub(crate) base: Option<PathBuf>,

    /// Include the disks that the guest writes to: as copies that share their data (reflink), as copies made while the
    /// guest is paused (copy), or not (none) [default: reflink, and none with --stop].
    #[arg(long, value_name = "reflink|copy|none", hide_possible_values = true)]
    pub(crate) disks: Option<Disks>,

    /// End the VM when the snapshot is safe.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) stop: bool,

    /// Let a VM go on that was paused.
    #[arg(long)]
    pub(crate) resume: bool,

    /// Print one JSON object instead of a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A snapshot.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// Folder of the snapshot.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = a_folder())]
    pub(crate) dir: PathBuf,
}

/// `rvmm snapshot inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) snapshot: DirArgs,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rvmm snapshot merge`
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    #[command(flatten)]
    pub(crate) snapshot: DirArgs,
    /// The folder to make, with a snapshot in it that needs no other.
    #[arg(value_name = "OUT", value_hint = ValueHint::DirPath, value_parser = a_folder())]
    pub(crate) out: PathBuf,
}

/// `rvmm clone`
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// Folder of the snapshot.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = a_folder())]
    pub(crate) dir: PathBuf,

    /// How many VMs.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,

    /// What they are called: PREFIX-1, PREFIX-2 and so on [default: the folder's name, web-snap of web.snap].
    #[arg(long, value_name = "PREFIX", value_parser = super::a_name)]
    pub(crate) id: Option<String>,

    /// Give each VM copies of its own of the disks that it writes to, in this folder, where they stay when it ends.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) copy_disks: Option<PathBuf>,

    /// Give the network interfaces of each VM new MAC addresses.
    #[arg(long)]
    pub(crate) new_mac: bool,

    /// `--net`; its help has brackets and braces.
    #[arg(long = "net", value_name = "id=ID[,…]")]
    #[arg(
        help = "Another end for a network interface, as rvmm restore takes it; {i} is the number of the VM: \
                  id=net0,tap=tap{i}. May be repeated"
    )]
    pub(crate) nets: Vec<OsString>,

    /// Print a JSON array instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// More options of rvmm restore, for each VM; {i} is its number.
    #[arg(last = true, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) restore: Vec<OsString>,
}
