//! The folder for what lives as long as the host is up: kept answers, and the names of running VMs.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// `$XDG_RUNTIME_DIR/rvmm`, or `/run/rvmm` for root, or `/run/user/UID/rvmm`. `None` where none of them can be.
pub fn path() -> Option<PathBuf> {
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = xdg.or_else(|| match effective_user() {
        0 => Some(PathBuf::from("/run")),
        user => Some(PathBuf::from(format!("/run/user/{user}"))).filter(|dir| dir.is_dir()),
    });
    base.map(|base| base.join("rvmm"))
}

/// [`path`], made if it is not there.
///
/// # Errors
/// What the host said; a folder that others own or can write to is refused.
pub fn create() -> io::Result<PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "no runtime folder; set XDG_RUNTIME_DIR");
    let folder = path().ok_or_else(missing)?;
    // Whoever can rename our folder can have us write to, and remove from, another: `sudo -E` keeps XDG_RUNTIME_DIR.
    folder.parent().map_or(Ok(()), check_private)?;
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(named(&folder, &error)),
        _ => {}
    }
    check_private(&folder)?;
    Ok(folder)
}

/// [`path`], if there is such a folder.
///
/// # Errors
/// What the host said; a folder that others own or can write to is refused.
pub fn existing() -> io::Result<Option<PathBuf>> {
    let Some(folder) = path() else { return Ok(None) };
    match folder.parent().map_or(Ok(()), check_private).and_then(|()| check_private(&folder)) {
        Ok(()) => Ok(Some(folder)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error with the folder that it is of.
fn named(folder: &Path, error: &io::Error) -> io::Error {
    let message = format!("{}: {error}; set XDG_RUNTIME_DIR to a folder of yours", folder.display());
    io::Error::new(error.kind(), message)
}

/// Refuses what is not a folder of this user, to which nobody else can write.
fn check_private(folder: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(folder).map_err(|error| named(folder, &error))?;
    if metadata.is_dir() && metadata.uid() == effective_user() && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let message = format!("{} has to be a folder that only its user can write to", folder.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// The user that this process acts as.
#[expect(unsafe_code, reason = "geteuid(2) has no wrapper in the standard library")]
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}
