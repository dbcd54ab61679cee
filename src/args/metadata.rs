//! Options for what the guest reads from its metadata service.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// What is in the service's store at first. Which interfaces lead to it is in the configuration, as `mmds-config`.
#[derive(Debug, Default, Args)]
pub(crate) struct MetadataArgs {
    /// JSON file that the metadata service gives to the guest.
    #[arg(long, value_name = "FILE", help_heading = "Network", value_hint = ValueHint::FilePath)]
    pub(crate) metadata: Option<PathBuf>,

    /// Bytes that the metadata may have, as JSON [default: that of --http-api-max-payload-size].
    #[arg(long, value_name = "BYTES", help_heading = "Network")]
    pub(crate) mmds_size_limit: Option<usize>,
}
