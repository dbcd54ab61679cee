//! Options that measure a start, as Firecracker has them.

use api::StartTimes;
use clap::Args;

/// What a start is measured from.
#[derive(Debug, Default, Args)]
pub(crate) struct TimingArgs {
    /// The guest has a register where it says that it has booted, which is logged with the time that it took.
    #[arg(long, help_heading = "Timing")]
    pub(crate) boot_timer: bool,

    /// When this process was started, in microseconds of the monotonic clock: the metrics of the API have the time from
    /// there to the socket.
    #[arg(long, value_name = "US", help_heading = "Timing")]
    pub(crate) start_time_us: Option<u64>,

    /// CPU time that this process had used by then, in microseconds.
    #[arg(long, value_name = "US", help_heading = "Timing")]
    pub(crate) start_time_cpu_us: Option<u64>,

    /// CPU time that its parent spent on starting it, in microseconds, to be added.
    #[arg(long, value_name = "US", help_heading = "Timing")]
    pub(crate) parent_cpu_time_us: Option<u64>,
}

impl TimingArgs {
    /// When the process started.
    pub(crate) fn start_times(&self) -> StartTimes {
        StartTimes {
            monotonic: self.start_time_us,
            cpu: self.start_time_cpu_us,
            parent_cpu: self.parent_cpu_time_us,
        }
    }
}
