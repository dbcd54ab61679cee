//! What an instance takes along, and what its host must have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was found.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Portability {
    /// What must be on the host, file by file.
    pub(crate) shipped: Vec<Shipped>,
    /// What was done to set it up, a step each.
    pub(crate) steps: Vec<String>,
    /// Whether it could be set up and started by a user without rights, who is only in the group of `/dev/kvm`, if it has one;
    /// none where that was not tried.
    pub(crate) without_root: Option<bool>,
    /// What that user was told, where it did not; or why that was not tried.
    pub(crate) without_root_error: Option<String>,
    /// Features of the host's kernel that the running instance was seen to use: namespaces, control groups, device files.
    pub(crate) host_features: Vec<String>,
    /// Whether it can run another kernel or system than the host's.
    pub(crate) other_kernel: bool,
}

/// A file or folder that an instance needs.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shipped {
    /// What it is: program, kernel, image.
    pub(crate) what: String,
    /// Its size on disk, in bytes; holes take no room.
    pub(crate) size: u64,
}
