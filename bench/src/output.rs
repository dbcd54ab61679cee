//! Files that results are written to.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// Standard output.
const STDOUT: &str = "-";

/// Writes a file that is there whole or not at all; a link stays one. What is no regular file, a pipe or a device, is written to as it
/// is, and `-` is standard output.
///
/// # Errors
/// It cannot be written; the message names it.
pub(crate) fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    attempt(path, content).with_context(|| format!("{} cannot be written", path.display()))
}

fn attempt(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if path == Path::new(STDOUT) {
        return Ok(io::stdout().lock().write_all(content)?);
    }
    if is_special(path) {
        return Ok(OpenOptions::new().write(true).open(path)?.write_all(content)?);
    }
    let path = behind_links(path)?;
    let mut file = beside(&path)?;
    file.write_all(content)?;
    file.persist(&path)?;
    Ok(())
}

/// Finds out whether `path` can be written, before anything takes long.
///
/// # Errors
/// It cannot; the message names it.
pub(crate) fn check(path: &Path) -> anyhow::Result<()> {
    let check = || {
        if path == Path::new(STDOUT) || is_special(path) {
            return Ok(());
        }
        let path = behind_links(path)?;
        ensure!(!path.is_dir(), "it is a folder; a file is wanted");
        beside(&path).map(drop)
    };
    check().with_context(|| format!("{} cannot be written", path.display()))
}

/// A pipe, a device or a socket.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir())
}

/// Where a link leads, for one that leads to a file.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    if path.is_symlink() { path.canonicalize() } else { Ok(path.to_owned()) }
}

/// A file in the same folder, which is gone unless it takes the place of `path`.
fn beside(path: &Path) -> anyhow::Result<tempfile::NamedTempFile<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "old").unwrap();
        symlink("file", &link).unwrap();
        check(&link).unwrap();
        write(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_device_is_written_to_and_stays_one() {
        let full = Path::new("/dev/full");
        check(full).unwrap();
        assert!(write(full, b"text").is_err());
        assert!(is_special(full));
        write(Path::new("/dev/null"), b"text").unwrap();
    }

    #[test]
    fn a_folder_and_what_is_in_none_are_refused_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none/file")] {
            let error = format!("{:#}", check(&path).unwrap_err());
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
