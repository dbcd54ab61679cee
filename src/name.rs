//! What a VM is called: one running VM per name and user.
//!
//! A name is a folder in the runtime folder:
//!
//! | file | |
//! | --- | --- |
//! | `pid` | the process, which holds a lock on it |
//! | `api.sock` | the REST socket, or a link to where it was asked to be |
//! | `log` | of a VM in the background: rvmm's own log |
//! | `error` | of one that failed: why |
//!
//! The lock goes with the process, however that ends; a folder that was left behind is taken over by the next VM of that
//! name, or cleared by `rvmm rm`.

mod holder;
pub(crate) mod known;
pub(crate) mod process;
pub(crate) mod regular;

use std::cell::Cell;
use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmm::same_file;

/// The locked file in a name's folder.
const PID: &str = "pid";
/// The REST socket there.
pub(crate) const SOCKET: &str = "api.sock";
/// Where that socket is until it listens, if the process is killed just then.
const HIDDEN_SOCKET: &str = ".api.sock";
/// rvmm's own log there.
pub(crate) const LOG: &str = "log";
/// Why the VM failed.
const ERROR: &str = "error";
/// How often a name is tried whose last owner is just ending, or that somebody is just looking at.
const MAX_TRIES: u32 = 50;
/// How long apart that is.
const LOOKED_AT: Duration = Duration::from_millis(10);
/// How many folders that others left behind one VM clears, and how many it looks at for that: it has a guest to run.
const MAX_SWEPT: usize = 8;
const MAX_LOOKED_AT: usize = 256;
/// Most bytes of a name.
const MAX_LEN: usize = 64;
/// Bytes of one that is made up.
const INVENTED_LEN: usize = 12;

/// Whether `id` can be a name: it is that of a folder, and what others read on their terminals.
fn is_valid(id: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_LEN).contains(&id.len()) && id.bytes().all(valid)
}

/// A name for a VM that was given none. That two are the same is as good as impossible, and the second would do without.
pub(crate) fn invent() -> String {
    // The keys of the hash are random.
    format!("{:0INVENTED_LEN$x}", RandomState::new().hash_one(std::process::id()) >> 16)
}

/// Whether `id` looks like a name that was made up.
fn is_invented(id: &str) -> bool {
    id.len() == INVENTED_LEN && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Why a name is not to be had.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// A VM of this name is running.
    Running {
        /// Its process, if that is known.
        pid: Option<u32>,
    },
    /// This user has no runtime folder, as in a jail.
    NoFolder(io::Error),
    /// It is no name, or the host refuses it.
    Refused(String),
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { pid } => {
                let pid = number(*pid);
                write!(f, "a VM of this name is running (pid {pid}); end it, or choose another name")
            }
            Self::NoFolder(error) => write!(f, "cannot take the name: {error}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

/// A name that no other VM of this user can have until this is dropped.
#[derive(Debug)]
pub(crate) struct Name {
    folder: PathBuf,
    lock: File,
    /// What is there stays, when this is dropped.
    stays: Cell<bool>,
}

impl Name {
    /// Takes the name `id`, or says who has it. What another VM left behind there is gone then.
    pub(crate) fn take(id: &str) -> Result<Self, TakeError> {
        if !is_valid(id) {
            let why = format!("a name has 1 to {MAX_LEN} letters, digits, '-' and '_'");
            return Err(TakeError::Refused(why));
        }
        let refused = |error: io::Error| TakeError::Refused(format!("cannot take the name: {error}"));
        let parent = vmm::runtime_dir::create().map_err(TakeError::NoFolder)?;
        let folder = parent.join(id);
        let lock = lock(&folder)?;
        let name = Self { folder, lock, stays: Cell::new(false) };
        name.clear_socket();
        if is_invented(id) {
            sweep(&parent);
        }
        for file in [SOCKET, HIDDEN_SOCKET, LOG, ERROR] {
            match fs::remove_file(name.folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
                _ => {}
            }
        }
        let mut lock = &name.lock;
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| {
            let pid = format!("{}\n", std::process::id());
            lock.write_all(pid.as_bytes())
        });
        written.map_err(refused)?;
        Ok(name)
    }

    /// Removes the socket elsewhere that the last VM of this name had.
    fn clear_socket(&self) {
        if let Ok(elsewhere) = fs::read_link(self.socket()) {
            api::clear_stale_socket(&elsewhere);
        }
    }

    /// Where the REST socket is, or a link to it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Where rvmm's own log is, when it is not anywhere else.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    /// Leaves the folder behind, with the reason why the VM failed.
    pub(crate) fn leave(&self, error: &str) {
        if !is_still(&self.lock, &self.folder.join(PID)).unwrap_or(false) {
            return;
        }
        self.stays.set(true);
        // Without it the VM is shown as dead.
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        let _ = regular::open_with(&self.folder.join(ERROR), &mut options)
            .and_then(|mut file| file.write_all(format!("{error}\n").as_bytes()));
    }
}

/// Makes the folder of a name, and locks it.
fn lock(folder: &Path) -> Result<File, TakeError> {
    let refused = |error: io::Error| TakeError::Refused(format!("cannot take the name: {error}"));
    let path = folder.join(PID);
    let mut running = None;
    for _ in 0..MAX_TRIES {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(refused(error)),
            _ => {}
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let opened = regular::open_with(&path, &mut options);
        let lock = match opened {
            Ok(file) => file,
            // Its last owner ended just now and took the folder along.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                // Goes only when it is empty, and so nobody's.
                let _ = fs::remove_dir(folder);
                return Err(refused(error));
            }
        };
        match lock.try_lock() {
            Ok(()) if is_still(&lock, &path).map_err(refused)? => return Ok(lock),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // It may be somebody who only looks, and is gone in a moment.
                running = Some(lock);
                std::thread::sleep(LOOKED_AT);
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
    }
    let Some(lock) = running else {
        let folder = folder.display();
        return Err(TakeError::Refused(format!(
            "{folder} comes and goes; remove it, or choose another name"
        )));
    };
    Err(TakeError::Running { pid: holder::find(&lock) })
}

/// Clears some of the folders in `parent` that VMs with names that were made up left behind when they were killed: no next
/// VM of such a name takes them over. Those that have failed stay, to be asked why.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let invented = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_invented));
    let dead = invented.take(MAX_LOOKED_AT).filter_map(|entry| {
        let folder = entry.path();
        let pid = folder.join(PID);
        let lock = regular::open(&pid).ok()?;
        let dead = lock.try_lock().is_ok() && is_still(&lock, &pid).ok()? && !folder.join(ERROR).exists();
        dead.then(|| Name { folder, lock, stays: Cell::new(false) })
    });
    for name in dead.take(MAX_SWEPT) {
        name.clear_socket();
    }
}

/// The number of a process, as it is shown.
fn number(pid: Option<u32>) -> String {
    pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
}

/// Whether `path` still names `file`. When its owner removed it between our opening and our locking, the lock is worth
/// nothing: the next VM makes a file of its own.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) => Ok(same_file(&there, &file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // A folder that somebody emptied, and another VM made anew, is the other's.
        let ours = is_still(&self.lock, &self.folder.join(PID)).unwrap_or(false);
        if self.stays.get() || !ours {
            return;
        }
        // What cannot be removed is taken over by the next VM of this name. Nothing but our own is removed, nor anything
        // opened for it, which takes a descriptor that there may not be. The lock is worth something until its file goes.
        for file in [SOCKET, HIDDEN_SOCKET, LOG, ERROR, PID] {
            let _ = fs::remove_file(self.folder.join(file));
        }
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
    fn a_folder_that_another_vm_made_anew_is_left_to_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("web");
        let name = |lock| Name { folder: folder.clone(), lock, stays: Cell::new(false) };
        let first = name(lock(&folder).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        let second = name(lock(&folder).unwrap());
        first.leave("an error of the first");
        drop(first);
        assert!(folder.join(PID).exists() && !folder.join(ERROR).exists());
        drop(second);
        assert!(!folder.exists());
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for id in ["", ".", "..", "a/b", "a b", "ä", &"a".repeat(65)] {
            let error = Name::take(id).unwrap_err().to_string();
            assert!(error.contains("1 to 64 letters"), "{error}");
        }
    }

    #[test]
    fn invented_names_are_names_and_differ() {
        let names: std::collections::HashSet<String> = (0..1000).map(|_| invent()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| is_valid(name) && is_invented(name)), "{names:?}");
    }

    #[test]
    fn a_few_folders_of_dead_vms_with_made_up_names_are_cleared() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |id: &str| parent.path().join(id);
        let dead = |id: &str| drop(lock(&folder(id)).unwrap());
        (0..10).for_each(|n| dead(&format!("{n:012x}")));
        ["web", "0123456789AB"].into_iter().for_each(dead);
        let _alive = lock(&folder("aaaaaaaaaaaa")).unwrap();
        dead("ffffffffffff");
        fs::write(folder("ffffffffffff").join(ERROR), "").unwrap();
        fs::create_dir(folder("bbbbbbbbbbbb")).unwrap();
        let count = || fs::read_dir(parent.path()).unwrap().count();
        for left in [15 - MAX_SWEPT, 5, 5] {
            sweep(parent.path());
            assert_eq!(count(), left);
        }
    }

    #[test]
    fn a_lock_that_somebody_only_looks_at_is_waited_for_and_one_that_stays_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("web");
        drop(lock(&folder).unwrap());
        let looking = File::open(folder.join(PID)).unwrap();
        looking.lock_shared().unwrap();
        let taking = std::thread::spawn({
            let folder = folder.clone();
            move || lock(&folder)
        });
        std::thread::sleep(LOOKED_AT * 4);
        drop(looking);
        let _taken = taking.join().unwrap().unwrap();
        assert!(matches!(lock(&folder), Err(TakeError::Running { .. })));
    }
}
