//! Options for what watches and steers a VM from outside.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Bytes that the body of a request may have when nobody says.
const DEFAULT_PAYLOAD_SIZE: usize = 51_200;

/// How others reach the VM while it runs.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option without a value")]
pub(crate) struct ControlArgs {
    /// Listen on a unix socket for REST requests: watch, pause and change the VM while it runs. Without a kernel, the VM
    /// waits to be configured and started there.
    #[arg(long, value_name = "PATH", help_heading = "Control", value_hint = ValueHint::FilePath)]
    pub(crate) api_sock: Option<PathBuf>,

    /// Run in the background, and print the VM's name once its guest runs; its console is where rvmm console ID finds it.
    #[arg(long, short, help_heading = "Control")]
    pub(crate) detach: bool,

    /// Listen nowhere.
    #[arg(long, help_heading = "Control", conflicts_with = "api_sock")]
    pub(crate) no_api: bool,

    /// Bytes that the body of a request may have.
    #[arg(long, value_name = "BYTES", help_heading = "Control", default_value_t = DEFAULT_PAYLOAD_SIZE)]
    pub(crate) http_api_max_payload_size: usize,

    /// Filters of system calls for rvmm's threads: a JSON policy in the form of the seccompiler crate, with "vmm", "api" and
    /// "vcpu".
    #[arg(long, value_name = "FILE", help_heading = "Control", value_hint = ValueHint::FilePath)]
    pub(crate) seccomp_filter: Option<PathBuf>,

    /// Run without a filter of system calls, as rvmm does unless it is given one.
    #[arg(long, help_heading = "Control", conflicts_with = "seccomp_filter")]
    pub(crate) no_seccomp: bool,

    /// Firecracker's option: virtio devices are on PCI anyway.
    #[arg(long, help_heading = "Control")]
    pub(crate) enable_pci: bool,

    /// Append a line of metrics, as JSON, to a file or named pipe every minute and at the end.
    #[arg(long, value_name = "FILE", help_heading = "Control", value_hint = ValueHint::FilePath)]
    pub(crate) metrics_path: Option<PathBuf>,
}

impl Default for ControlArgs {
    fn default() -> Self {
        Self {
            api_sock: None,
            detach: false,
            no_api: false,
            http_api_max_payload_size: DEFAULT_PAYLOAD_SIZE,
            seccomp_filter: None,
            no_seccomp: false,
            enable_pci: false,
            metrics_path: None,
        }
    }
}
