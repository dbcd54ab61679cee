//! PUT `/vsock`.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Lowest context id that a guest can have: 0 is the hypervisor, 1 means "local", 2 the host (virtio 1.3, 5.10.4).
pub const MIN_GUEST_CID: u64 = 3;
/// Highest context id that a guest can have: the upper 32 bits are reserved, and 0xffffffff means "any".
pub const MAX_GUEST_CID: u64 = 0xffff_fffe;
/// Bytes that the path of a unix socket can have: `sun_path` holds 108, with a zero byte at the end.
pub const MAX_SOCKET_PATH_LEN: usize = 107;

/// The configuration of a socket device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// A name without a use, which older clients of the API still send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_id: Option<String>,
    /// Context id of the guest, [`MIN_GUEST_CID`] to [`MAX_GUEST_CID`].
    pub guest_cid: u64,
    /// The unix socket that host programs connect to. What the guest connects to, at port P, is at this path with
    /// `_P` behind it. At most [`MAX_SOCKET_PATH_LEN`] bytes.
    pub uds_path: PathBuf,
}

/// Why a socket device cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VsockConfigError {
    /// A context id that no guest can have.
    #[error("vsock: guest_cid {cid}: a guest's context id is {MIN_GUEST_CID} to {MAX_GUEST_CID}")]
    Cid {
        /// What was asked for.
        cid: u64,
    },
    /// There is no path.
    #[error("vsock: uds_path is empty: it is the unix socket that host programs connect to")]
    NoPath,
    /// No socket can have this path.
    #[error("vsock: uds_path {path} has {len} bytes: a unix socket's path has {MAX_SOCKET_PATH_LEN} at most")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The system could not be told of this path.
    #[error("vsock: uds_path has a zero byte in it")]
    ZeroByte,
}

impl VsockConfig {
    /// Checks what can be checked without the host.
    ///
    /// # Errors
    /// [`VsockConfigError`], with the value and its limits.
    pub fn validate(&self) -> Result<(), VsockConfigError> {
        if !(MIN_GUEST_CID..=MAX_GUEST_CID).contains(&self.guest_cid) {
            return Err(VsockConfigError::Cid { cid: self.guest_cid });
        }
        let path = self.uds_path.as_os_str().as_bytes();
        match path.len() {
            0 => return Err(VsockConfigError::NoPath),
            len if len > MAX_SOCKET_PATH_LEN => {
                return Err(VsockConfigError::PathTooLong { path: self.uds_path.clone(), len });
            }
            _ => {}
        }
        if path.contains(&0) { Err(VsockConfigError::ZeroByte) } else { Ok(()) }
    }
}
