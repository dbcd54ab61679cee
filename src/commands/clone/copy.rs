//! Copies of disk images.
#![expect(unsafe_code, reason = "fcntl(2) has no wrapper in the standard library")]

use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use vmm::snapshot::{DiskCopyError, DiskV2, copy_sparse, reflink};

use super::fleet::FleetError;

/// The image of a drive, which nobody writes to by rvmm as long as this is there.
pub(in crate::commands) struct Image<'a> {
    drive_id: &'a str,
    path: PathBuf,
    file: File,
    metadata: Metadata,
    size: u64,
}

impl<'a> Image<'a> {
    /// Opens the image `path` of the drive `drive_id`, and locks it as a VM does that only reads it.
    ///
    /// # Errors
    /// A VM writes to it, or the host's word.
    pub(in crate::commands) fn open(drive_id: &'a str, path: &Path) -> Result<Self, String> {
        use std::io::{Seek as _, SeekFrom};
        let failed =
            |error: io::Error| format!("drive \"{drive_id}\": cannot read {}: {error}", path.display());
        let options = File::options().read(true).custom_flags(libc::O_NONBLOCK).to_owned();
        let mut file = options.open(path).map_err(failed)?;
        let is_free = lock(&file).map_err(failed)?;
        if !is_free {
            return Err(format!(
                "drive \"{drive_id}\": {} is in use by another rvmm or another process, which writes to it: stop that, or \
                 name a copy from the time of the snapshot: -- --disk id={drive_id},path=FILE",
                path.display()
            ));
        }
        let metadata = file.metadata().map_err(failed)?;
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { drive_id, path: path.to_owned(), file, metadata, size })
    }

    /// Refuses an image that is not as it was at the snapshot.
    ///
    /// # Errors
    /// How it differs, and the mend.
    pub(in crate::commands) fn check(&self, was: &DiskV2) -> Result<(), String> {
        let Self { drive_id, path, metadata, size, .. } = self;
        let now = DiskV2::of(drive_id, metadata, *size, was.is_read_only);
        let Some(difference) = was.difference(&now) else { return Ok(()) };
        // No guest can be restored with a disk of another size.
        let accept = if now.size == was.size { ", or accept it (-- --accept-changed-disks)" } else { "" };
        Err(format!(
            "drive \"{drive_id}\": {} {difference}: the file systems of its copies would be damaged. Name copies from the time \
             of the snapshot (-- --disk id={drive_id},path=FILE){accept}",
            path.display()
        ))
    }

    /// Makes the new file `copy` the same: where the file system can, the two share what they have in common; else the
    /// holes of one are holes of the other.
    fn fill(&self, copy: &File, to: &Path) -> Result<(), String> {
        let unread = |error| format!("cannot read {}: {error}", self.path.display());
        let unwritten = |error| format!("cannot write {}: {error}", to.display());
        if reflink(&self.file, copy).map_err(unwritten)? {
            return Ok(());
        }
        copy_sparse(&self.file, copy, self.size).map_err(|failed| match failed {
            DiskCopyError::Read(error) => unread(error),
            DiskCopyError::Write(error) => unwritten(error),
        })
    }
}

/// Takes a lock that others who read may have as well, as the block device does; `false` when somebody has it who writes.
fn lock(file: &File) -> io::Result<bool> {
    let whole_file = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the kernel reads one `flock`, which lives for the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole_file) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        // The file system has no locks, so a VM has none either.
        Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS) => Ok(true),
        _ => Err(error),
    }
}

/// Files that were made, and go again unless they are kept.
#[derive(Debug, Default)]
pub(in crate::commands) struct Copies {
    files: Vec<PathBuf>,
    /// The folder of them, if it was made for them.
    folder: Option<PathBuf>,
}

impl Copies {
    /// Makes the folder of the copies, unless it is there.
    ///
    /// # Errors
    /// What the host said.
    pub(in crate::commands) fn make_folder(&mut self, folder: &Path) -> Result<(), String> {
        match fs::create_dir(folder) {
            Ok(()) => self.folder = Some(folder.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot make the folder {}: {error}", folder.display())),
        }
        Ok(())
    }

    /// Copies `image` to the new file `to`, which is there when it is whole.
    ///
    /// # Errors
    /// What the host said, with the file.
    pub(in crate::commands) fn make(&mut self, image: &Image<'_>, to: &Path) -> Result<(), String> {
        let hidden = hidden(to);
        let failed = |error: io::Error| format!("cannot make {}: {error}", to.display());
        let mode = image.metadata.permissions().mode() & 0o777 | 0o600;
        let copy = create(&hidden, mode).map_err(failed)?.ok_or_else(|| {
            format!("another rvmm is writing {}: wait for it, or name another folder", to.display())
        })?;
        let whole = image.fill(&copy, to).and_then(|()| {
            if fs::symlink_metadata(to).is_ok() {
                return Err(occupied(to));
            }
            fs::rename(&hidden, to).map_err(failed)
        });
        match whole {
            Ok(()) => self.files.push(to.to_owned()),
            // It is locked, so nobody else's.
            Err(_) => drop(fs::remove_file(&hidden)),
        }
        whole
    }

    /// They stay.
    pub(in crate::commands) fn keep(mut self) {
        self.forget();
    }

    /// The VMs do not all run, because of `error`, which is returned: the files go again, unless a VM still uses them.
    pub(in crate::commands) fn give_up(&mut self, error: FleetError) -> FleetError {
        if !error.have_all_ended {
            self.forget();
        }
        error
    }

    fn forget(&mut self) {
        self.files.clear();
        self.folder = None;
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        for path in &self.files {
            // What cannot be removed is in the folder that the user named.
            let _ = fs::remove_file(path);
        }
        if let Some(folder) = &self.folder {
            // By now there may be something else in it.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Why there can be no copy `to`, where something is.
pub(in crate::commands) fn occupied(to: &Path) -> String {
    format!(
        "{} is there already: remove it if no VM needs it, or name another folder for the copies",
        to.display()
    )
}

/// The name beside `path` of what is not whole yet.
fn hidden(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

/// A new file at `path`, locked, in place of one that was left by a process that was killed; `None` when another process
/// has that.
fn create(path: &Path, mode: u32) -> io::Result<Option<File>> {
    let new = || File::options().write(true).create_new(true).mode(mode).open(path);
    let file = match new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let left = File::options().write(true).custom_flags(flags).open(path)?;
            if !is_taken(&left, path)? {
                return Ok(None);
            }
            fs::remove_file(path)?;
            new()?
        }
        other => other?,
    };
    Ok(is_taken(&file, path)?.then_some(file))
}

/// Takes the lock of `file`; whether it could, and the file is still at `path`.
fn is_taken(file: &File, path: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (its, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok((its.dev(), its.ino()) == (there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn disk(folder: &Path) -> PathBuf {
        let path = folder.join("disk");
        let source = File::create(&path).unwrap();
        source.set_len(64 << 20).unwrap();
        source.write_all_at(b"begin", 0).unwrap();
        source.write_all_at(b"middle", 40 << 20).unwrap();
        path
    }

    #[test]
    fn a_copy_is_the_same_and_as_sparse_and_goes_unless_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let image = Image::open("data", &disk).unwrap();
        let (made, copy) = (folder.path().join("made"), folder.path().join("made/copy"));
        let mut copies = Copies::default();
        copies.make_folder(&made).unwrap();
        copies.make(&image, &copy).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), fs::read(&disk).unwrap());
        assert!(fs::metadata(&copy).unwrap().blocks() < 4096, "it has holes");
        let error = copies.make(&image, &copy).unwrap_err();
        assert!(error.contains("is there already: remove it"), "{error}");
        assert_eq!(fs::read_dir(&made).unwrap().count(), 1, "nothing is left of what failed");
        drop(copies);
        assert!(!made.exists());
        let mut copies = Copies::default();
        copies.make_folder(&made).unwrap();
        copies.make(&image, &copy).unwrap();
        copies.keep();
        assert!(copy.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_what_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let image = Image::open("data", &disk).unwrap();
        let copy = folder.path().join("copy");
        fs::write(hidden(&copy), "half").unwrap();
        let writes = File::open(hidden(&copy)).unwrap();
        writes.lock().unwrap();
        let mut copies = Copies::default();
        let error = copies.make(&image, &copy).unwrap_err();
        assert!(error.contains("another rvmm is writing"), "{error}");
        drop(writes);
        copies.make(&image, &copy).unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().len(), 64 << 20);
        assert!(!hidden(&copy).exists());
    }

    #[test]
    fn an_image_that_changed_since_the_snapshot_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let was = DiskV2::look("data", &disk, false).unwrap();
        Image::open("data", &disk).unwrap().check(&was).unwrap();
        File::options().write(true).open(&disk).unwrap().set_len(1 << 20).unwrap();
        let error = Image::open("data", &disk).unwrap().check(&was).unwrap_err();
        assert!(error.contains("has 1048576 bytes instead of 67108864"), "{error}");
        assert!(!error.contains("--accept-changed-disks"), "{error}");
    }
}
