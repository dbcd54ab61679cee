//! Options of `rvmm restore`.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueHint};
use vmm::config::{DriveOverride, LoadSnapshot, MemBackend, MemBackendType, NetworkOverride, VsockOverride};
use vmm::controller::ExitOn;
use vmm::memory::HugePages;

use super::exit_on;
use super::overrides::{copy_folder, disk_override, net_override, vsock_override};
use super::{
    ConsoleEnd, ControlArgs, HugePagesArg, LogArgs, MetadataArgs, OnReset, Stop, TimingArgs, a_folder, a_name,
};

/// `rvmm restore`
#[derive(Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option without a value")]
pub(crate) struct RestoreArgs {
    /// Folder of the snapshot.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = a_folder())]
    pub(crate) dir: PathBuf,

    /// Name of the VM, which rvmm ps shows and other verbs take [default: one is made up].
    #[arg(long, value_name = "NAME", help_heading = "Machine", value_parser = a_name)]
    pub(crate) id: Option<String>,

    /// Leave the guest paused; rvmm resume ID lets it go on.
    #[arg(long, help_heading = "Machine")]
    pub(crate) paused: bool,

    /// Have the guest's clocks go on from the time of the snapshot, instead of catching up with the host's.
    #[arg(long, help_heading = "Machine")]
    pub(crate) keep_clock: bool,

    /// What a guest reset does: end rvmm, or boot the guest again.
    #[arg(
        long,
        value_name = "exit|restart",
        help_heading = "Machine",
        value_enum,
        hide_possible_values = true
    )]
    #[arg(default_value = "exit")]
    pub(crate) on_reset: OnReset,

    /// `--exit-on`; its help has brackets, which rustdoc would take for links.
    #[arg(long, value_name = "EVENT=CODE[,…]", help_heading = "Machine")]
    #[arg(
        help = "Exit codes for what the guest does: [panic=CODE][,triple-fault=CODE][,reset=CODE], 0 to 255; without \
                  one it is 0 for a triple fault and a reset, and a panic (pvpanic) does not end rvmm"
    )]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| exit_on::parse(&value)))]
    pub(crate) exit_on: Option<ExitOn>,

    /// Keep track of the pages that the guest writes, for a diff snapshot.
    #[arg(long, help_heading = "Memory")]
    pub(crate) track_dirty_pages: bool,

    /// Pages of the host that back guest memory: 4 KiB (none), transparent huge pages, or 2M of hugetlbfs [default: as before].
    #[arg(long, value_name = "none|transparent|2M", help_heading = "Memory", value_enum)]
    #[arg(hide_possible_values = true)]
    pub(crate) huge_pages: Option<HugePagesArg>,

    /// Read all of memory before the guest goes on.
    #[arg(long, help_heading = "Memory")]
    pub(crate) prefault: bool,

    /// When the VM ends, write to DIR which pages of memory it used: later restores have them at hand.
    #[arg(long, help_heading = "Memory", conflicts_with_all = ["prefault", "uffd"])]
    pub(crate) record: bool,

    /// Have the process that listens at this unix socket give each page of memory when the guest first touches it.
    #[arg(long, value_name = "SOCKET", help_heading = "Memory", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with = "prefault")]
    pub(crate) uffd: Option<PathBuf>,

    /// `--disk`; its help has brackets, which rustdoc would take for links.
    #[arg(long = "disk", value_name = "id=ID[,…]", help_heading = "Host", value_hint = ValueHint::FilePath)]
    #[arg(
        help = "Another file or engine for a disk; may be repeated: id=ID[,path=FILE][,engine=sync|io_uring]"
    )]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| disk_override(&value)))]
    pub(crate) disks: Vec<DriveOverride>,

    /// Copy the disks that the snapshot includes to FOLDER, and use the copies. They stay when the VM ends.
    #[arg(long = "disks", value_name = "copy=FOLDER", help_heading = "Host", value_hint = ValueHint::DirPath)]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| copy_folder(&value)))]
    pub(crate) copy_disks: Option<PathBuf>,

    /// Take disks whose files are not as they were at the snapshot.
    #[arg(long, help_heading = "Host")]
    pub(crate) accept_changed_disks: bool,

    /// `--net`; its help has brackets, which rustdoc would take for links.
    #[arg(long = "net", value_name = "id=ID[,…]", help_heading = "Host")]
    #[arg(help = "Another end for a network interface; may be repeated: \
                  id=ID[,tap=NAME][,mac=ADDRESS|mac=new][,publish=[ADDR:]HOST:GUEST[/udp]|publish=none]…")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| net_override(&value)))]
    pub(crate) nets: Vec<NetworkOverride>,

    /// Another context id for the guest, or another unix socket that host programs connect to.
    #[arg(long, value_name = "[cid=N][,uds=PATH]", help_heading = "Host", value_hint = ValueHint::FilePath)]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| vsock_override(&value)))]
    pub(crate) vsock: Option<VsockOverride>,

    #[command(flatten)]
    pub(crate) control: ControlArgs,

    #[command(flatten)]
    pub(crate) timing: TimingArgs,

    #[command(flatten)]
    pub(crate) metadata: MetadataArgs,

    /// Where the guest's consoles go.
    #[arg(long, value_name = "stdio|none|file=PATH", help_heading = "Console and log")]
    #[arg(default_value = "stdio", value_parser = OsStringValueParser::new().try_map(|value| ConsoleEnd::of(&value)))]
    pub(crate) console: ConsoleEnd,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl RestoreArgs {
    /// Refuses what no single option shows to be wrong.
    pub(super) fn checked(self) -> Result<Self, Stop> {
        let ids = self.disks.iter().map(|disk| disk.drive_id.as_str());
        let twice =
            ids.enumerate().find(|(at, id)| self.disks.iter().take(*at).any(|disk| disk.drive_id == *id));
        match twice {
            Some((_, id)) => Err(Stop::usage(&format!("--disk id={id} is given twice: a disk has one file"))),
            None => Ok(self),
        }
    }

    /// What is asked of the VM.
    pub(crate) fn load(&self) -> LoadSnapshot {
        LoadSnapshot {
            snapshot_path: self.dir.clone(),
            mem_file_path: None,
            mem_backend: self
                .uffd
                .clone()
                .map(|backend_path| MemBackend { backend_type: MemBackendType::Uffd, backend_path }),
            track_dirty_pages: self.track_dirty_pages,
            resume_vm: !self.paused,
            network_overrides: self.nets.clone(),
            vsock_override: self.vsock.clone(),
            clock_realtime: Some(!self.keep_clock),
            huge_pages: self.huge_pages.map(HugePages::from),
            drive_overrides: self.disks.clone(),
            accept_changed_drives: self.accept_changed_disks,
            prefault: self.prefault,
            record_working_set: self.record,
        }
    }
}
