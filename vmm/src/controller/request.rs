//! What can be asked of a VM, and what it answers. The command line and the REST socket have nothing else.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use devices::mmds::StoreError;
use devices::rate_limiter::RateLimiterConfig;
use devices::virtio::balloon::{BalloonError, BalloonStatistics};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ControllerError, CreateError, OnReset};
use crate::config::{BalloonConfig, ConfigError, CreateSnapshot, LoadSnapshot, LoggerConfig, Part, VmConfig};
use crate::metrics::Snapshot;

/// Where a VM is in its life: `Not started → Running ⇄ Paused`, and then it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// It takes its configuration.
    #[serde(rename = "Not started")]
    NotStarted,
    /// Its vCPUs run.
    Running,
    /// Its vCPUs stand between two instructions, and its devices keep quiet.
    Paused,
}

impl State {
    /// That something is not possible, in Firecracker's words.
    fn refusal(self) -> &'static str {
        match self {
            Self::NotStarted => "The requested operation is not supported before starting the microVM.",
            Self::Running | Self::Paused => {
                "The requested operation is not supported after starting the microVM."
            }
        }
    }

    /// What to ask for instead, in a refusal.
    fn advice(self) -> &'static str {
        match self {
            Self::NotStarted => "it can be configured, and started with InstanceStart",
            Self::Running => "it can be paused, and its devices changed",
            Self::Paused => "it can be resumed, and its devices changed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "not started",
            Self::Running => "running",
            Self::Paused => "paused",
        })
    }
}

/// A new backing file or new limits for a drive; what is absent stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveUpdate {
    /// Which drive.
    pub drive_id: String,
    /// The file that it is from now on.
    pub path_on_host: Option<PathBuf>,
    /// Its limits from now on.
    pub rate_limiter: Option<RateLimiterConfig>,
}

/// New limits for a network interface; what is absent stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetUpdate {
    /// Which interface.
    pub iface_id: String,
    /// Limits on what the guest receives.
    pub rx_rate_limiter: Option<RateLimiterConfig>,
    /// Limits on what the guest sends.
    pub tx_rate_limiter: Option<RateLimiterConfig>,
}

/// A new size for the balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonUpdate {
    /// How much the balloon is to take from the guest, in MiB.
    pub amount_mib: u32,
}

/// How often the guest reports the statistics of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonStatsUpdate {
    /// Seconds from one report to the next; 0: no reports.
    pub stats_polling_interval_s: u16,
}

/// What can be asked of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// [`Response::Instance`].
    GetInstance,
    /// [`Response::Config`].
    GetConfig,
    /// Take a part of the configuration, before the VM starts.
    Configure(Box<Part>),
    /// Log differently from now on.
    SetLogger(LoggerConfig),
    /// Start the guest.
    Start,
    /// Stop the vCPUs between two instructions. Of a paused VM: nothing.
    Pause,
    /// Let the vCPUs go on. Of a running VM: nothing.
    Resume,
    /// Write a snapshot. The answer comes when it is on the disk; the guest may run before.
    CreateSnapshot(Box<CreateSnapshot>),
    /// Make the VM from a snapshot, in place of configuring and starting it.
    LoadSnapshot(Box<LoadSnapshot>),
    /// Press Ctrl-Alt-Del on the guest's keyboard.
    SendCtrlAltDel,
    /// Press the guest's power button.
    PressPowerButton,
    /// Type these bytes at the guest's console, as many as it has room for: [`Response::Typed`].
    Type(Vec<u8>),
    /// Change a drive.
    UpdateDrive(DriveUpdate),
    /// Change a network interface.
    UpdateNet(NetUpdate),
    /// [`Response::Balloon`].
    GetBalloon,
    /// Resize the balloon.
    UpdateBalloon(BalloonUpdate),
    /// [`Response::BalloonStatistics`].
    GetBalloonStatistics,
    /// Have the guest report its statistics more or less often.
    UpdateBalloonStatistics(BalloonStatsUpdate),
    /// [`Response::Mmds`].
    GetMmds,
    /// Replace what the metadata service gives out.
    PutMmds(Value),
    /// Change what the metadata service gives out, by a JSON merge patch.
    PatchMmds(Value),
    /// Write a line of metrics now.
    FlushMetrics,
    /// [`Response::Metrics`].
    GetMetrics,
}

impl Request {
    /// What is asked for, for a refusal.
    pub fn what(&self) -> &'static str {
        match self {
            Self::GetInstance | Self::GetConfig | Self::GetMetrics => "to say what the VM is",
            Self::Configure(part) => part.what(),
            Self::SetLogger(_) => "to set up the log",
            Self::Start => "to start the VM",
            Self::Pause => "to pause the VM",
            Self::Resume => "to resume the VM",
            Self::CreateSnapshot(_) => "to create a snapshot",
            Self::LoadSnapshot(_) => "to load a snapshot",
            Self::SendCtrlAltDel => "to press Ctrl-Alt-Del",
            Self::PressPowerButton => "to press the power button",
            Self::Type(_) => "to type at the console",
            Self::UpdateDrive(_) => "to change a drive",
            Self::UpdateNet(_) => "to change a network interface",
            Self::GetBalloon => "to look at the balloon",
            Self::UpdateBalloon(_) => "to resize the balloon",
            Self::GetBalloonStatistics => "to read the balloon's statistics",
            Self::UpdateBalloonStatistics(_) => "to change the balloon's statistics",
            Self::GetMmds => "to read the metadata",
            Self::PutMmds(_) | Self::PatchMmds(_) => "to change the metadata",
            Self::FlushMetrics => "to write metrics",
        }
    }
}

/// What a VM answers when it does what it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// It is done.
    Done,
    /// To [`Request::GetInstance`].
    Instance(Instance),
    /// To [`Request::Type`]: how many bytes there was room for.
    Typed(usize),
    /// To [`Request::GetConfig`]: what the VM is made of now, changes while it ran included.
    Config(Box<VmConfig>),
    /// To [`Request::GetBalloon`]: the balloon as it is now.
    Balloon(Box<BalloonConfig>),
    /// To [`Request::GetBalloonStatistics`].
    BalloonStatistics(Box<BalloonStatistics>),
    /// To [`Request::GetMmds`]: what the metadata service gives out.
    Mmds(Value),
    /// To [`Request::GetMetrics`].
    Metrics(Box<Metrics>),
}

/// Which VM this is, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The VM's name.
    pub id: String,
    /// Where it is in its life.
    pub state: State,
    /// What a reset by its guest does.
    pub on_reset: OnReset,
}

/// The counters of a VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// The VM's name.
    pub id: String,
    /// What its parts have counted.
    pub counters: Snapshot,
}

/// Why a VM does not do what it was asked for. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not in this state. The first sentence is Firecracker's, which its clients look for.
    #[error("{} {what} is not possible: the VM is {state}; {}", state.refusal(), state.advice())]
    State {
        /// What was asked for.
        what: &'static str,
        /// Where the VM is in its life.
        state: State,
    },
    /// A snapshot is of a VM that stands still.
    #[error("a snapshot is not possible: the VM is running; pause it first, or ask for a live one")]
    NotPaused,
    /// What was given cannot be part of a VM.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// The VM cannot be started.
    #[error("the VM cannot be started")]
    Start(#[source] Box<ControllerError>),
    /// There is no snapshot.
    #[error("no snapshot was written")]
    Snapshot(#[source] Box<CreateError>),
    /// The VM would change after its last snapshot.
    #[error("the VM is being saved and ends then; wait for that, or end it by SIGTERM")]
    Ending,
    /// The log cannot be written as was asked for.
    #[error("{0}")]
    Logger(String),
    /// The metadata cannot be changed so.
    #[error(transparent)]
    Mmds(#[from] StoreError),
    /// A disk cannot be what rvmm itself writes to.
    #[error("{} is where rvmm writes its {output}; give another file", path.display())]
    OwnOutput {
        /// The file that was given.
        path: PathBuf,
        /// What is written there.
        output: &'static str,
    },
    /// There is no such device.
    #[error("there is no {kind} \"{id}\"; this VM has {}", Known(known))]
    NoSuchDevice {
        /// What kind of device was asked for.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The ids that there are.
        known: Vec<String>,
    },
    /// The VM was not given this part.
    #[error("the VM has no {0}; it is given with the configuration, before the VM starts")]
    NotConfigured(&'static str),
    /// The balloon cannot do it.
    #[error(transparent)]
    Balloon(Box<BalloonError>),
    /// A device cannot do it.
    #[error("cannot {what}")]
    Device {
        /// What was tried.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Too many requests wait already.
    #[error("the VM has too many requests waiting; try again")]
    Busy,
    /// The VM ended before it came to this request.
    #[error("the VM has ended")]
    Ended,
}

/// What one request comes to.
pub type Answer = Result<Response, Refusal>;

struct Known<'a>(&'a [String]);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}
