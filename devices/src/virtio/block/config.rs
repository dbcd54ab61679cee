//! PUT `/drives/{id}`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::rate_limiter::RateLimiterConfig;

/// Bytes that a drive's id may have.
const MAX_ID_LEN: usize = 64;

/// What a flush of the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// The device offers no flush. Data reaches the disk when the host's page cache gets to it; a host that crashes
    /// loses it.
    #[default]
    Unsafe,
    /// The device offers flush, which returns when the data is on the disk.
    Writeback,
}

/// How a drive does its I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoEngine {
    /// One system call per request, in the event loop.
    Sync,
    /// io_uring.
    Async,
}

/// The configuration of a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Name of the drive, which the guest can read as its serial number (20 bytes of it).
    pub drive_id: String,
    /// The guest's root file system is on it.
    pub is_root_device: bool,
    /// Raw image or block device on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_on_host: Option<PathBuf>,
    /// The guest cannot write.
    #[serde(default)]
    pub is_read_only: bool,
    /// The root file system's partition, when this drive has a partition table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// What a flush does.
    #[serde(default)]
    pub cache_type: CacheType,
    /// Limits bytes of data and requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterConfig>,
    /// How I/O is done; by default io_uring where the host has it and the image is not in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_engine: Option<IoEngine>,
    /// Socket of a vhost-user backend. Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Data does not go through the host's page cache (O_DIRECT). A field of rvmm's own, false when absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
}

/// Why a drive cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockConfigError {
    /// The id has characters or a length that an id cannot have.
    #[error("drive id {id:?} must have 1 to {MAX_ID_LEN} letters, digits, '_' or '-'")]
    BadId {
        /// The id.
        id: String,
    },
    /// There is nothing behind the drive.
    #[error("drive {id}: path_on_host is missing")]
    NoPath {
        /// The drive's id.
        id: String,
    },
    /// A field that nothing implements.
    #[error("drive {id}: {field} is not supported yet")]
    Unsupported {
        /// The drive's id.
        id: String,
        /// The field's name.
        field: &'static str,
    },
}

impl BlockConfig {
    /// Checks what can be checked without the host.
    ///
    /// # Errors
    /// When the id is not one, a field is missing, or one is set that is not supported yet.
    pub fn validate(&self) -> Result<(), BlockConfigError> {
        let id = || self.drive_id.clone();
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=MAX_ID_LEN).contains(&self.drive_id.len()) || !self.drive_id.bytes().all(valid) {
            return Err(BlockConfigError::BadId { id: id() });
        }
        if self.socket.is_some() {
            return Err(BlockConfigError::Unsupported { id: id(), field: "socket" });
        }
        if self.path_on_host.is_none() {
            return Err(BlockConfigError::NoPath { id: id() });
        }
        Ok(())
    }
}
