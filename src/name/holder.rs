//! Which process holds the lock on the file of a name. What the file says is not to be believed by itself: whoever may
//! have rvmm write to a file (the guest's serial port, the log) may have it write another process's number there, and a
//! VM in another PID namespace writes the number that it has there.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use vmm::same_file;

/// Bytes of a number with its line end.
const MAX_PID: usize = 16;

/// The process that holds the lock on `file`, by this process's numbers; `None` when that is not to be found out.
pub(super) fn find(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    read(file).filter(|pid| has_locked(*pid, &metadata)).or_else(|| listed(&metadata))
}

/// The number in `file`.
fn read(file: &File) -> Option<u32> {
    let mut bytes = [0; MAX_PID];
    let len = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(bytes.get(..len)?).ok()?.trim().parse().ok()
}

/// Whether a descriptor of the process `pid` holds the lock on the file that `metadata` is of.
fn has_locked(pid: u32, metadata: &Metadata) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        fs::metadata(descriptor.path()).is_ok_and(|file| same_file(&file, metadata))
            && fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().display()))
                .is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:") && is_exclusive(line)))
    })
}

/// The process that the kernel's list of locks names. It has the number of the file system, which is not that of the file
/// on each of them, and so comes second.
fn listed(metadata: &Metadata) -> Option<u32> {
    let device = metadata.dev();
    let file = format!("{:02x}:{:02x}:{}", libc::major(device), libc::minor(device), metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line =
        locks.lines().find(|line| is_exclusive(line) && line.split_whitespace().nth(5) == Some(&file))?;
    line.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 0)
}

/// Whether `line` is of such a lock as a name has (proc_locks(5)), and not of one that waits for it (`->`).
fn is_exclusive(line: &str) -> bool {
    line.contains(": FLOCK ") && line.contains(" WRITE ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_known_whatever_the_file_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let looking = File::open(file.path()).unwrap();
        let me = std::process::id();
        for text in [me.to_string(), "1\n".to_owned(), "0".to_owned(), "x".repeat(99), String::new()] {
            fs::write(file.path(), &text).unwrap();
            file.as_file().lock().unwrap();
            let found = find(&looking);
            // A file system whose number is not the file's leaves it unknown, and never a process that it is not.
            assert!(found == Some(me) || (found.is_none() && text != me.to_string()), "{text:?}: {found:?}");
            file.as_file().unlock().unwrap();
            assert_eq!(find(&looking), None, "{text:?}");
        }
    }
}
