//! `--id NAME`: one running VM per name and user.
//!
//! A name is a folder in the runtime folder with a locked file, which has the pid. The lock goes with the process, however
//! that ends; a folder that was left behind is taken over by the next VM of that name.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The locked file in a name's folder.
const FILE: &str = "pid";
/// How often a name is tried whose last owner is just ending.
const MAX_TRIES: u32 = 32;
/// Most bytes of a name.
const MAX_LEN: usize = 64;

/// A name that no other VM of this user can have until this is dropped.
#[derive(Debug)]
pub(crate) struct Name {
    folder: PathBuf,
    lock: File,
}

impl Name {
    /// Takes the name `id`, or says who has it.
    pub(crate) fn take(id: &str) -> Result<Self, String> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=MAX_LEN).contains(&id.len()) || !id.bytes().all(valid) {
            return Err(format!("--id {id:?}: a name has 1 to {MAX_LEN} letters, digits, '-' and '_'"));
        }
        let refused = |error: &io::Error| format!("--id {id}: cannot take the name: {error}");
        let folder = vmm::runtime_dir::create().map_err(|error| refused(&error))?.join(id);
        let mut tries = 0..MAX_TRIES;
        let lock = loop {
            if tries.next().is_none() {
                return Err(format!(
                    "--id {id}: {} comes and goes; remove it, or choose another name",
                    folder.display()
                ));
            }
            match DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(refused(&error)),
                _ => {}
            }
            let path = folder.join(FILE);
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut lock = match opened {
                Ok(file) => file,
                // Its last owner ended just now and took the folder along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    // Goes only when it is empty, and so nobody's.
                    let _ = fs::remove_dir(&folder);
                    return Err(refused(&error));
                }
            };
            match lock.try_lock() {
                Ok(()) if is_still(&lock, &path).map_err(|error| refused(&error))? => break lock,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    let _ = (&mut lock).take(16).read_to_string(&mut pid);
                    return Err(format!(
                        "--id {id}: a VM of this name is running (pid {}); end it, or choose another name",
                        pid.trim()
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(refused(&error)),
            }
        };
        let name = Self { folder, lock };
        let mut lock = &name.lock;
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| {
            let pid = format!("{}\n", std::process::id());
            lock.write_all(pid.as_bytes())
        });
        written.map_err(|error| refused(&error))?;
        Ok(name)
    }
}

/// Whether `path` still names `file`. When its owner removed it between our opening and our locking, the lock is worth
/// nothing: the next VM makes a file of its own.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) => {
            let ours = file.metadata()?;
            Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // What cannot be removed is taken over by the next VM of this name. Nothing but our own is removed, nor anything
        // opened for it, which takes a descriptor that there may not be.
        let _ = fs::remove_file(self.folder.join(FILE));
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_removed_or_replaced_is_not_still_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let file = File::create(&path).unwrap();
        assert!(is_still(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_still(&file, &path).unwrap());
        File::create(&path).unwrap();
        assert!(!is_still(&file, &path).unwrap());
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for id in ["", ".", "..", "a/b", "a b", "ä", &"a".repeat(65)] {
            let error = Name::take(id).unwrap_err();
            assert!(error.contains("1 to 64 letters"), "{error}");
        }
    }
}
