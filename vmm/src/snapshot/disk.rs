//! How a drive was on the host when a snapshot was written, to tell later whether it still is.

use std::fs::{File, Metadata};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A drive's image on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskV2 {
    /// Which drive.
    pub drive_id: String,
    /// Length in bytes.
    pub size: u64,
    /// When its content last changed, in nanoseconds since 1970, UTC. 0 of a block device, whose node does not tell.
    pub modified: i64,
    /// The guest cannot write.
    pub is_read_only: bool,
    /// Number of the device that the image is on, for information.
    pub device: u64,
    /// Number of its inode, for information.
    pub inode: u64,
    /// The file in the snapshot's folder that has the disk's content, if the snapshot includes it: a name without a slash.
    pub included: Option<String>,
}

/// What an image is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// A regular file, whose time of last change shows whether it was written to.
    File,
    /// A block device, of which nothing shows that.
    Device,
}

/// The name of the file in a snapshot's folder that has the content of the drive `drive_id`.
pub(super) fn file_name(drive_id: &str) -> String {
    format!("disk-{drive_id}.img")
}

/// Whether [`file_name`] can be `name`.
pub(super) fn is_file_name(name: &str) -> bool {
    let id = name.strip_prefix("disk-").and_then(|rest| rest.strip_suffix(".img"));
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    id.is_some_and(|id| !id.is_empty() && name.len() <= 255 && id.bytes().all(valid))
}

/// Opens an image for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

impl DiskV2 {
    /// Whether the image was a file or a block device when the snapshot was written.
    pub fn kind(&self) -> ImageKind {
        if self.modified == 0 { ImageKind::Device } else { ImageKind::File }
    }

    /// How the image at `path` of the drive `drive_id` is now.
    ///
    /// # Errors
    /// What the host said on opening it.
    pub fn look(drive_id: &str, path: &Path, is_read_only: bool) -> io::Result<Self> {
        let mut file = open(path)?;
        let metadata = file.metadata()?;
        // A block device has no length.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self::of(drive_id, &metadata, size, is_read_only))
    }

    /// The image with `metadata` and `size` bytes, of the drive `drive_id`.
    pub fn of(drive_id: &str, metadata: &Metadata, size: u64, is_read_only: bool) -> Self {
        let nanoseconds =
            metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Self {
            drive_id: drive_id.to_owned(),
            size,
            modified: if metadata.is_file() { nanoseconds } else { 0 },
            is_read_only,
            device: metadata.dev(),
            inode: metadata.ino(),
            included: None,
        }
    }

    /// How the image `now`, perhaps under another path, is another than this one, as in "has 5 bytes instead of 6"; `None`
    /// when nothing tells them apart.
    pub fn difference(&self, now: &Self) -> Option<String> {
        if self.size != now.size {
            return Some(format!("has {} bytes instead of {}", now.size, self.size));
        }
        (self.modified != now.modified).then(|| "was written to since the snapshot".to_owned())
    }
}
