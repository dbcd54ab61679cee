//! The command line: what each option is called, takes and defaults to.
//!
//! `rvmm --kernel FILE …` runs a VM and needs no verb; everything else is a verb. Parsing a run is on the path to the
//! guest's first instruction, so [`parse`] first reads what is [`plain`], then tries the options of a run alone, and builds
//! the whole command line, with its verbs and help texts, only when that does not succeed.

mod balloon;
mod by_name;
mod control;
mod cpu_template;
mod disk;
pub(crate) mod exit_on;
mod fields;
mod huge_pages;
mod log;
mod metadata;
mod net;
mod overrides;
mod plain;
mod restore;
mod serve_memory;
mod size;
mod snapshot;
mod timing;
mod transport;
mod usage;
mod vsock;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, PathBufValueParser, TypedValueParser};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, ValueHint};
use vmm::controller::ExitOn;

pub(crate) use balloon::BalloonArg;
pub(crate) use by_name::{ID, KillArgs, LogsArgs, MetricsArgs, PsArgs, RmArgs, StopArgs, VmArgs};
pub(crate) use control::ControlArgs;
pub(crate) use disk::{Cache, DiskArg, Engine};
pub(crate) use huge_pages::HugePagesArg;
pub(crate) use log::LogArgs;
pub(crate) use metadata::MetadataArgs;
pub(crate) use net::NetArg;
pub(crate) use overrides::new_mac;
use overrides::{disk_override, net_override, vsock_override};
pub(crate) use restore::RestoreArgs;
pub(crate) use serve_memory::ServeMemoryArgs;
pub(crate) use snapshot::{
    CloneArgs, CreateArgs, DirArgs, Disks, InspectArgs, MergeArgs, SnapshotArgs, SnapshotVerb,
};
pub(crate) use timing::TimingArgs;
pub(crate) use transport::TransportArg;
pub(crate) use usage::Stop;
pub(crate) use vsock::VsockArg;

/// The verb that is parsed the short way.
const RESTORE: &str = "restore";

/// Shown at the end of the help, and in the manual page.
pub(crate) const EXAMPLES: &str = "  rvmm --kernel vmlinux --rootfs disk.ext4
  rvmm --kernel bzImage --initrd initrd.img --append 'debug' --cpus 2 --memory 1G
  rvmm --kernel vmlinux --rootfs disk.ext4,readonly --disk path=data.img,engine=io_uring,id=data
  rvmm --kernel vmlinux --rootfs disk.ext4 --net user,publish=8080:80
  rvmm --config-file vm.json --console none --log-file vm.log --log-level info
  rvmm --detach --id web --kernel vmlinux --rootfs disk.ext4; rvmm ps; rvmm console web; rvmm stop web
  rvmm snapshot web web.snap; rvmm restore web.snap; rvmm clone web.snap -n 10
  rvmm doctor";

/// What an option's line has no room for.
pub(crate) const NOTES: &str = "\
On a terminal, Ctrl-A x ends the VM and Ctrl-A h shows the other keys.
A comma that belongs to a path in --rootfs, --disk or --vsock is written twice: --disk path=a,,b.img";

/// The exit codes of a run.
pub(crate) const EXIT_CODES: &str = "  0  the guest powered off or reset, or Ctrl-A x
  1  rvmm or the host could not run it; one line on stderr says why
  2  the command line is wrong
  128 + N  signal N ended it: 143 after SIGTERM, 130 after SIGINT";

const SNAPSHOT_EXAMPLES: &str = "Examples:
  rvmm snapshot web web.snap                         a VM that runs goes on, one that is paused stays so
  rvmm snapshot web web.2 --diff                     what was written since, in a second
  rvmm snapshot web web.3 --stop                     the VM ends when it is saved
  rvmm snapshot merge web.2 web.4; rvmm snapshot verify web.4";

const RESTORE_EXAMPLES: &str = "Examples:
  rvmm restore web.snap
  rvmm restore web.snap --detach --id web-2 --disk id=rootfs,path=copy.ext4 --vsock uds=web-2.sock
  rvmm restore web.snap --paused --api-sock web.sock --net id=net0,mac=new,publish=8081:80";

const CLONE_EXAMPLES: &str = "Examples:
  rvmm clone web.snap -n 10 --id web --copy-disks disks
  rvmm clone web.snap -n 2 --net id=net0,tap=tap{i} --new-mac -- --no-api --log-level info

Ctrl-C leaves the VMs that were started by then: rvmm ps lists them.";

/// Runs a Linux guest in a microVM: its own kernel, virtual CPUs, memory, disks and network.
#[derive(Debug, Parser)]
#[command(
    name = "rvmm",
    version,
    after_help = format!("Examples:\n{EXAMPLES}\n\n{NOTES}\n\nExit codes:\n{EXIT_CODES}"),
    override_usage = "rvmm --kernel FILE [OPTIONS]\n       rvmm COMMAND",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
struct CommandLine {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: RunArgs,
}

/// What the user asked for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// No verb: run a VM.
    Run(Box<RunArgs>),
    /// One of the verbs.
    Verb(Verb),
}

/// The verbs; each has a file of its name in `commands/`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the VMs that run, and those that were killed or failed.
    Ps(PsArgs),
    /// Print all that is known of a VM, as JSON.
    Inspect(VmArgs),
    /// Stop a guest between two instructions.
    Pause(VmArgs),
    /// Let a paused guest go on.
    Resume(VmArgs),
    /// End a VM: by its power button and Ctrl-Alt-Del, then by SIGTERM, then by SIGKILL.
    #[command(
        after_help = "Exit codes:\n  0  the guest ended by itself\n  3  SIGTERM was needed\n  4  SIGKILL was needed"
    )]
    Stop(StopArgs),
    /// Send a signal to a VM's process.
    Kill(KillArgs),
    /// Attach to a VM's console; Ctrl-A d leaves it.
    Console(VmArgs),
    /// Print the last of what a guest wrote to its console.
    Logs(LogsArgs),
    /// Print what a VM counts, for Prometheus.
    Metrics(MetricsArgs),
    /// Print a VM's configuration, for --config-file.
    #[command(after_help = "Example:\n  rvmm config web > vm.json; rvmm --config-file vm.json")]
    Config(VmArgs),
    /// Print what happens to a VM, a JSON object per line.
    Events(VmArgs),
    /// Remove what VMs left behind that were killed or failed.
    Rm(RmArgs),
    /// Save a VM to a folder, from which it can be restored; it goes on meanwhile.
    #[command(after_help = SNAPSHOT_EXAMPLES)]
    Snapshot(SnapshotArgs),
    /// Run the VM that was saved, from where it was.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(Box<RestoreArgs>),
    /// Start several VMs from one snapshot, in the background.
    #[command(after_help = CLONE_EXAMPLES)]
    Clone(CloneArgs),
    /// Serve the memory of a snapshot to VMs, page by page (userfaultfd).
    #[command(after_help = "Example:\n  rvmm serve-memory snapshot --socket memory.sock")]
    ServeMemory(ServeMemoryArgs),
    /// Show what this host can do, what it lacks, and how to mend that.
    Doctor(DoctorArgs),
    /// Compare microVMs and containers on this host, and measure rvmm (the program rvmm-bench).
    #[command(disable_help_flag = true)]
    Bench(BenchArgs),
    /// Print a script that completes rvmm's options in a shell.
    #[command(after_help = "Example:\n  rvmm completions bash > /etc/bash_completion.d/rvmm")]
    Completions(CompletionsArgs),
    /// Print the manual page.
    #[command(after_help = "Example:\n  rvmm man > /usr/local/share/man/man1/rvmm.1")]
    Man,
}

/// `rvmm doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rvmm bench`
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What rvmm-bench is told: compare, report, startup, restore, api, io, each with --help.
    #[arg(value_name = "WORDS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<OsString>,
}

/// `rvmm completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete in.
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// A run: the VM that the options describe. Values have the right form; whether they make sense together, and on this
/// host, is decided where the VM's configuration is validated.
#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    /// Guest kernel: an uncompressed ELF (vmlinux) or a bzImage.
    #[arg(long, value_name = "FILE", help_heading = "Boot", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,

    /// Initial RAM disk.
    #[arg(long, value_name = "FILE", help_heading = "Boot", value_hint = ValueHint::FilePath)]
    pub(crate) initrd: Option<PathBuf>,

    /// Kernel command line, in place of the default one.
    #[arg(long, value_name = "STR", help_heading = "Boot", allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,

    /// Words to add to the default kernel command line.
    #[arg(
        long,
        value_name = "STR",
        help_heading = "Boot",
        allow_hyphen_values = true,
        conflicts_with = "cmdline"
    )]
    pub(crate) append: Option<String>,

    /// JSON file that describes the VM; options given beside it win, disks and network interfaces are added.
    #[arg(long, value_name = "FILE", help_heading = "Boot", value_hint = ValueHint::FilePath)]
    pub(crate) config_file: Option<PathBuf>,

    /// Number of virtual CPUs, 1 to 32 [default: 1].
    #[arg(long, value_name = "N", help_heading = "Machine", value_parser = whole_number)]
    pub(crate) cpus: Option<u32>,

    /// Guest memory: a number with K, M or G (powers of 1024), such as 512M or 2G; without one it counts bytes
    /// [default: 128M].
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = size::parse)]
    pub(crate) memory: Option<u64>,

    /// Change what the guest's CPU shows: a file with a CPU template, or one of rvmm's own by name ("help" lists them).
    #[arg(long, value_name = "FILE|NAME", help_heading = "Machine", value_hint = ValueHint::FilePath)]
    pub(crate) cpu_template: Option<String>,

    /// Pages of the host that back guest memory: 4 KiB (none), transparent huge pages, or 2M of hugetlbfs [default: none].
    #[arg(long, value_name = "none|transparent|2M", help_heading = "Machine", value_enum)]
    #[arg(hide_possible_values = true)]
    pub(crate) huge_pages: Option<HugePagesArg>,

    /// The bus that virtio devices are on: pci or mmio [default: pci].
    #[arg(long, value_name = "pci|mmio", help_heading = "Machine", value_enum, hide_possible_values = true)]
    pub(crate) transport: Option<TransportArg>,

    /// `--balloon`; its help has brackets, which rustdoc would take for links.
    #[arg(long, value_name = "size=SIZE,…", help_heading = "Machine", num_args = 0..=1, default_missing_value = "")]
    #[arg(help = "Memory that the guest gives up and the host gets: \
                  [size=SIZE][,deflate-on-oom][,stats=SECONDS][,reporting]. With reporting the guest also gives \
                  back what it has freed")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| BalloonArg::parse(&value)))]
    pub(crate) balloon: Option<BalloonArg>,

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
    #[arg(long, help_heading = "Machine")]
    pub(crate) track_dirty_pages: bool,

    /// Name of the VM, which rvmm ps shows and other verbs take [default: one is made up].
    #[arg(long, value_name = "NAME", help_heading = "Machine", value_parser = a_name)]
    pub(crate) id: Option<String>,

    /// Disk image with the root file system: /dev/vda, and root=/dev/vda on the kernel command line.
    #[arg(long, value_name = "FILE[,…]", help_heading = "Disks", value_hint = ValueHint::FilePath)]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| DiskArg::parse_rootfs(&value)))]
    pub(crate) rootfs: Option<DiskArg>,

    /// `--disk`; its help has brackets, which rustdoc would take for links.
    #[arg(long = "disk", value_name = "path=FILE[,…]", help_heading = "Disks", value_hint = ValueHint::FilePath)]
    #[arg(
        help = "A further disk: path=FILE[,readonly][,engine=sync|io_uring][,cache=writeback|unsafe][,direct]\
                  [,bandwidth=SIZE][,ops=N][,id=NAME]; may be repeated. --rootfs takes the same but id. bandwidth and \
                  ops limit bytes and requests per second, direct goes round the host's page cache"
    )]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| DiskArg::parse(&value)))]
    pub(crate) disks: Vec<DiskArg>,

    /// `--net`; its help has brackets, which rustdoc would take for links.
    #[arg(long = "net", value_name = "user|tap=NAME[,…]", help_heading = "Network", num_args = 0..=1)]
    #[arg(default_missing_value = "user")]
    #[arg(help = "A network interface; may be repeated. user (or nothing): by passt, without root rights, \
                  user[,publish=[ADDR:]HOST:GUEST[/udp]]…[,host=on]; or a tap of the host, \
                  tap=NAME[,vhost=on]. Both take [,mac=ADDRESS][,mtu=N][,id=NAME]")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| NetArg::parse(&value)))]
    pub(crate) nets: Vec<NetArg>,

    /// Sockets between guest and host: the guest's context id, 3 or more, and the unix socket that host programs
    /// connect to.
    #[arg(long, value_name = "cid=N,uds=PATH", help_heading = "Sockets", value_hint = ValueHint::FilePath)]
    #[arg(value_parser = OsStringValueParser::new().try_map(|value| VsockArg::parse(&value)))]
    pub(crate) vsock: Option<VsockArg>,

    #[command(flatten)]
    pub(crate) control: ControlArgs,

    #[command(flatten)]
    pub(crate) timing: TimingArgs,

    #[command(flatten)]
    pub(crate) metadata: MetadataArgs,

    /// Where the guest's console goes; with virtio it has a second, faster one, /dev/hvc0.
    #[arg(long, value_name = "[virtio,]stdio|none|file=PATH", help_heading = "Console and log")]
    #[arg(default_value = "stdio", value_parser = OsStringValueParser::new().try_map(|value| ConsoleArg::parse(&value)))]
    pub(crate) console: ConsoleArg,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What happens when the guest resets its machine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum OnReset {
    /// rvmm ends with exit code 0.
    #[default]
    Exit,
    /// The guest boots again from its kernel.
    Restart,
}

/// `--console [virtio,]…`; `virtio` alone is `virtio,stdio`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ConsoleArg {
    /// The guest has a virtio console beside its serial port.
    pub(crate) virtio: bool,
    /// Where what it prints goes.
    pub(crate) end: ConsoleEnd,
}

/// The host's end of the console.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum ConsoleEnd {
    /// rvmm's standard input and output.
    #[default]
    Stdio,
    /// Output is dropped, input never comes.
    None,
    /// Output is written to this file, input never comes.
    File(PathBuf),
}

impl ConsoleArg {
    fn parse(value: &OsStr) -> Result<Self, String> {
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = value.as_bytes();
        let (virtio, end) = match bytes.strip_prefix(b"virtio") {
            Some(b"") => (true, &b"stdio"[..]),
            Some(rest) if rest.starts_with(b",") => (true, rest.get(1..).unwrap_or_default()),
            _ => (false, bytes),
        };
        Ok(Self { virtio, end: ConsoleEnd::parse(end)? })
    }
}

impl ConsoleEnd {
    /// `stdio|none|file=PATH`
    fn of(value: &OsStr) -> Result<Self, String> {
        use std::os::unix::ffi::OsStrExt as _;
        if value.as_bytes().starts_with(b"virtio") {
            return Err(
                "whether there is a virtio console is in the snapshot: expected stdio, none, file=PATH"
                    .to_owned(),
            );
        }
        Self::parse(value.as_bytes()).map_err(|_| "expected stdio, none, file=PATH".to_owned())
    }

    fn parse(value: &[u8]) -> Result<Self, String> {
        use std::os::unix::ffi::OsStringExt as _;
        match value {
            b"stdio" => Ok(Self::Stdio),
            b"none" => Ok(Self::None),
            b"file=" => Err("file= wants a path".to_owned()),
            other => match other.strip_prefix(b"file=") {
                Some(path) => Ok(Self::File(OsString::from_vec(path.to_vec()).into())),
                None => {
                    Err("expected virtio or [virtio,]stdio, [virtio,]none, [virtio,]file=PATH".to_owned())
                }
            },
        }
    }
}

/// Parses a command line, the program's name first.
pub(crate) fn parse(argv: &[OsString]) -> Result<Invocation, Stop> {
    if argv.get(1).is_some_and(|word| word == RESTORE)
        && let Some(restore) = argv.get(2..).and_then(plain::restore).or_else(|| restore(argv.get(1..)?).ok())
    {
        return Ok(Invocation::Verb(Verb::Restore(Box::new(restore))));
    }
    if let Some(run) = argv.get(1..).and_then(plain::run).or_else(|| parse_run(argv)) {
        return Ok(Invocation::Run(Box::new(run)));
    }
    let line = CommandLine::try_parse_from(argv).map_err(|error| Stop::from_clap(&error))?;
    match line.verb {
        Some(Verb::Restore(restore)) => {
            restore.checked().map(|restore| Invocation::Verb(Verb::Restore(Box::new(restore))))
        }
        Some(verb) => Ok(Invocation::Verb(verb)),
        None if line.run.cpu_template.as_deref() == Some(cpu_template::HELP) => Err(cpu_template::list()),
        None if line.run.names_a_guest() => Ok(Invocation::Run(Box::new(line.run))),
        None => Err(Stop::usage(
            "nothing to run: give --kernel FILE, --config-file FILE or --api-sock PATH, \
             for example: rvmm --kernel vmlinux --rootfs disk.ext4",
        )),
    }
}

/// The short way, for a command line that runs a VM and has no mistake. `None` leaves the verdict, and the words for
/// it, to the whole command line.
fn parse_run(argv: &[OsString]) -> Option<RunArgs> {
    let command = clap::Command::new("rvmm").disable_help_flag(true).disable_version_flag(true);
    let matches = RunArgs::augment_args(command).try_get_matches_from(argv).ok()?;
    let wants_help = |run: &RunArgs| run.cpu_template.as_deref() == Some(cpu_template::HELP);
    RunArgs::from_arg_matches(&matches).ok().filter(|run| run.names_a_guest() && !wants_help(run))
}

/// The short way for a restore, the verb first: it is as much in a hurry as a run.
pub(crate) fn restore(words: &[OsString]) -> Result<RestoreArgs, Stop> {
    let command = clap::Command::new(RESTORE).disable_help_flag(true).disable_version_flag(true);
    let matches = RestoreArgs::augment_args(command).try_get_matches_from(words);
    matches
        .and_then(|matches| RestoreArgs::from_arg_matches(&matches))
        .map_err(|error| Stop::from_clap(&error))
        .and_then(RestoreArgs::checked)
}

impl RunArgs {
    /// There is a guest, or somebody who can tell what it is.
    fn names_a_guest(&self) -> bool {
        self.kernel.is_some() || self.config_file.is_some() || self.control.api_sock.is_some()
    }
}

fn whole_number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "expected a whole number")
}

/// The path of a folder, which is shown without a slash at its end.
fn a_folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| a_folder_at(&path))
}

fn a_folder_at(path: &Path) -> PathBuf {
    path.components().as_path().to_owned()
}

/// Which characters a name has is said where it is taken; one that is empty could not be seen there.
fn a_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("a name cannot be empty") } else { Ok(text.to_owned()) }
}

/// The whole command line, for what is generated from it.
pub(crate) fn command() -> clap::Command {
    CommandLine::command()
}

#[cfg(test)]
mod tests;
