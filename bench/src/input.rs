//! Files that a user names.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// Opens a regular file: nothing that would have to be waited for, or has no end.
///
/// # Errors
/// It cannot be opened, or is something else; the message names it.
pub(crate) fn open(path: &Path) -> anyhow::Result<File> {
    let name = path.display();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.with_context(|| format!("{name} cannot be read"))?;
    ensure!(file.metadata()?.is_file(), "{name} is no regular file");
    Ok(file)
}

/// Reads a regular file of `most` bytes at most.
///
/// # Errors
/// As of [`open`], or it has more.
pub(crate) fn read(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let mut content = Vec::new();
    let read = open(path)?.take(most + 1).read_to_end(&mut content);
    read.with_context(|| format!("{name} cannot be read"))?;
    ensure!(content.len() as u64 <= most, "{name} has more than {most} bytes, which is too much");
    Ok(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

    use super::*;

    #[test]
    fn what_has_no_end_or_is_too_long_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let [file, pipe] = ["file", "pipe"].map(|name| folder.path().join(name));
        std::fs::write(&file, "four").unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&file, 4).unwrap(), b"four");
        for (path, most) in [(&*file, 3), (&pipe, 9), (Path::new("/dev/zero"), 9), (folder.path(), 9)] {
            let error = format!("{:#}", read(path, most).unwrap_err());
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
