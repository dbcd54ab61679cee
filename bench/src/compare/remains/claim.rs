//! How a comparison's folder is told from one that only has such a name: it is this user's, nobody else can read it, and its
//! file `lock` names it. Nothing else is ever swept.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

/// How the names of all folders begin. Six letters or digits follow.
pub(crate) const PREFIX: &str = "rvmm-bench-";

/// The file in a folder that is locked as long as its comparison lives.
pub(super) const LOCK: &str = "lock";

/// The first line of that file. The folder's path follows.
const MAGIC: &[u8] =
    b"the folder of a comparison by rvmm bench, to be deleted when nobody has locked this file\n";

/// The part of the folder's name that no other has.
pub(super) fn suffix(folder: &Path) -> Option<&str> {
    let suffix = folder.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    (suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(suffix)
}

fn content(folder: &Path) -> Vec<u8> {
    [MAGIC, folder.as_os_str().as_bytes(), b"\n"].concat()
}

/// Makes the lock of `folder`, an absolute path, and holds it.
///
/// # Errors
/// The file is there already, or cannot be written.
pub(super) fn take(folder: &Path) -> anyhow::Result<Flock<File>> {
    let path = folder.join(LOCK);
    let what = || path.display().to_string();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(what)?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error);
    let lock = lock.with_context(what)?;
    // Only now: whoever finds the folder named there finds it locked.
    (&*lock).write_all(&content(folder)).with_context(what)?;
    Ok(lock)
}

/// Whether `folder` has the name, the owner, and the mode of a comparison's. No symbolic link has.
pub(super) fn looks_own(folder: &Path) -> bool {
    suffix(folder).is_some()
        && fs::symlink_metadata(folder).is_ok_and(|metadata| {
            metadata.is_dir()
                && metadata.uid() == geteuid().as_raw()
                // Nobody else can have put anything there.
                && metadata.mode() & 0o022 == 0
        })
}

/// The lock of `folder`, if that is a comparison's that has ended.
pub(super) fn abandoned(folder: &Path) -> Option<Flock<File>> {
    if !looks_own(folder) {
        return None;
    }
    let path = folder.join(LOCK);
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
    let metadata = file.metadata().ok()?;
    let (expected, mut found) = (content(folder), Vec::new());
    if !metadata.is_file() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o777 != 0o600 {
        return None;
    }
    (&file).take(expected.len() as u64 + 1).read_to_end(&mut found).ok()?;
    if found != expected {
        return None;
    }
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
    // Another may have deleted the folder meanwhile, and a third one made it anew.
    let now = fs::symlink_metadata(&path).ok()?;
    ((now.dev(), now.ino()) == (metadata.dev(), metadata.ino())).then_some(lock)
}
