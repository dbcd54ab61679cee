//! Options of the verbs that take the name of a VM.

use std::time::Duration;

use clap::Args;

/// The name of a VM; what the shell completes.
pub(crate) const ID: &str = "ID";

/// One VM.
#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// Name of the VM; where nothing can be lost, the beginning of it will do.
    #[arg(value_name = ID)]
    pub(crate) id: String,
}

/// `rvmm ps`
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Print a JSON array instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the names alone, a line each.
    #[arg(long, conflicts_with = "json")]
    pub(crate) names: bool,
}

/// `rvmm stop`
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Seconds that the guest has to end by itself [default: 10].
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10", hide_default_value = true)]
    pub(crate) timeout: Duration,
}

/// `rvmm kill`
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// The signal: KILL, TERM, INT, HUP, QUIT, STOP, CONT, or a number [default: KILL].
    #[arg(long, value_name = "SIGNAL", value_parser = signal, default_value = "KILL", hide_default_value = true)]
    pub(crate) signal: libc::c_int,
}

/// `rvmm logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Go on with what the guest writes from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// rvmm's own log instead, of a VM that was started with --detach.
    #[arg(long, conflicts_with = "follow")]
    pub(crate) vmm: bool,
}

/// `rvmm metrics`
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Print one JSON object instead of the text form of Prometheus.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rvmm rm`
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names of VMs that have ended.
    #[arg(value_name = ID, required_unless_present = "all_dead")]
    pub(crate) ids: Vec<String>,
    /// All that have ended.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all_dead: bool,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or("expected a number of seconds")
}

fn signal(text: &str) -> Result<libc::c_int, &'static str> {
    let name = text.to_ascii_uppercase();
    let known = match name.strip_prefix("SIG").unwrap_or(&name) {
        "KILL" => Some(libc::SIGKILL),
        "TERM" => Some(libc::SIGTERM),
        "INT" => Some(libc::SIGINT),
        "HUP" => Some(libc::SIGHUP),
        "QUIT" => Some(libc::SIGQUIT),
        "STOP" => Some(libc::SIGSTOP),
        "CONT" => Some(libc::SIGCONT),
        number => number.parse().ok().filter(|number| (1..=64).contains(number)),
    };
    known.ok_or("expected KILL, TERM, INT, HUP, QUIT, STOP, CONT, or a number from 1 to 64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        for (text, number) in [("KILL", 9), ("sigterm", 15), ("Int", 2), ("18", 18)] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in ["", "SIG", "0", "65", "-9", "NONE"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "-1", "inf", "NaN", "1e300", "ten"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
