//! What drives of one VM must not share.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::{BlockConfig, ConfigError};

/// Checks each drive, and all of them together.
pub(super) fn validate(drives: &[BlockConfig]) -> Result<(), ConfigError> {
    let mut ids = HashSet::new();
    let mut root: Option<&str> = None;
    for drive in drives {
        let id = drive.drive_id.as_str();
        if !ids.insert(id) {
            return Err(ConfigError::DuplicateDrive { id: id.to_owned() });
        }
        if drive.is_root_device
            && let Some(first) = root.replace(id)
        {
            return Err(ConfigError::TwoRootDevices { first: first.to_owned(), second: id.to_owned() });
        }
        drive.validate()?;
    }
    Ok(())
}

/// Checks that no drive that the guest writes to has the same file as another. The lock on the file would refuse it, too,
/// but could not tell that the other is the VM itself. A file that is not there is left to who opens it.
pub(super) fn validate_files(drives: &[BlockConfig]) -> Result<(), ConfigError> {
    if drives.len() < 2 {
        return Ok(());
    }
    let mut seen: Vec<(Identity, &BlockConfig)> = Vec::with_capacity(drives.len());
    for drive in drives {
        let Some(path) = &drive.path_on_host else { continue };
        let Ok(metadata) = path.metadata() else { continue };
        let file = identity(&metadata);
        let clash = |(other, first): &&(Identity, &BlockConfig)| {
            *other == file && !(first.is_read_only && drive.is_read_only)
        };
        if let Some((_, first)) = seen.iter().find(clash) {
            return Err(ConfigError::SharedFile {
                first: first.drive_id.clone(),
                second: drive.drive_id.clone(),
                path: path.clone(),
            });
        }
        seen.push((file, drive));
    }
    Ok(())
}

/// What two paths to the same data have in common: device and inode, or the number of a block device, of which there can be
/// several nodes.
type Identity = (bool, u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    if metadata.file_type().is_block_device() {
        (true, metadata.rdev(), 0)
    } else {
        (false, metadata.dev(), metadata.ino())
    }
}
