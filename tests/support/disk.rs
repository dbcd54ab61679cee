//! Disk images for a guest.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

/// A raw disk image in a folder of its own, gone when the test ends.
pub(crate) struct Disk {
    folder: TempDir,
}

impl Disk {
    /// An image of `sectors` sectors of zeroes, but for `text` at its beginning.
    pub(crate) fn new(sectors: usize, text: &str) -> Self {
        let mut content = vec![0; sectors * 512];
        content[..text.len()].copy_from_slice(text.as_bytes());
        Self::with_content(&content)
    }

    /// An image with this content, whatever its size.
    pub(crate) fn with_content(content: &[u8]) -> Self {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(disk.path(), content).unwrap();
        disk
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}
