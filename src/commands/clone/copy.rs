//! Copies of disk images.
#![expect(unsafe_code, reason = "ioctl_ficlone(2) has no wrapper in the standard library")]

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use vmm::memory::data_extents;

/// Files that were made, and go again unless they are kept.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<PathBuf>);

impl Copies {
    /// Copies `from` to the new file `to`: where the file system can, the two share what they have in common; else the holes
    /// of one are holes of the other.
    ///
    /// # Errors
    /// What the host said, with the file.
    pub(super) fn make(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        let failed =
            |error: io::Error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
        let source = File::open(from).map_err(failed)?;
        let copy = File::options().write(true).create_new(true).open(to).map_err(failed)?;
        self.0.push(to.to_owned());
        fill(&source, &copy).map_err(failed)
    }

    /// They stay.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        for path in &self.0 {
            // What cannot be removed is in the folder that the user named.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn fill(mut source: &File, mut copy: &File) -> io::Result<()> {
    // SAFETY: takes two descriptors, which are open as long as the files are.
    if unsafe { libc::ioctl(copy.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) } == 0 {
        return Ok(());
    }
    let len = source.seek(SeekFrom::End(0))?;
    copy.set_len(len)?;
    for extent in data_extents(source, len) {
        source.seek(SeekFrom::Start(extent.start))?;
        copy.seek(SeekFrom::Start(extent.start))?;
        let want = extent.end - extent.start;
        // Within the kernel, where both are files.
        if io::copy(&mut io::Read::take(source, want), &mut copy)? < want {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    #[test]
    fn a_copy_is_the_same_and_as_sparse_and_goes_unless_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let source = File::create(at("disk")).unwrap();
        source.set_len(64 << 20).unwrap();
        source.write_all_at(b"begin", 0).unwrap();
        source.write_all_at(b"middle", 40 << 20).unwrap();
        let mut copies = Copies::default();
        copies.make(&at("disk"), &at("copy")).unwrap();
        assert_eq!(std::fs::read(at("copy")).unwrap(), std::fs::read(at("disk")).unwrap());
        assert!(File::open(at("copy")).unwrap().metadata().unwrap().blocks() < 4096, "it has holes");
        let error = copies.make(&at("disk"), &at("copy")).unwrap_err();
        assert!(error.contains("File exists"), "{error}");
        drop(copies);
        assert!(!at("copy").exists());
        let mut copies = Copies::default();
        copies.make(&at("disk"), &at("copy")).unwrap();
        copies.keep();
        assert!(at("copy").exists());
    }
}
