//! A start by a user without rights.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use nix::unistd::geteuid;

use crate::compare::contender::{Entry, Order};
use crate::compare::instance::Instance;
use crate::compare::stage::Stage;
use crate::compare::task::{MARKER, Task};
use crate::compare::tree;

/// The user and group that have nothing.
const NOBODY: u32 = 65534;

/// Bits of a file's mode that a change of its owner takes away.
const SET_ID: u32 = 0o6000;

/// Starts an instance as a user without rights, who owns the stage for that time, and is in the group of `/dev/kvm` if it has
/// one. Returns what that user was told if it doesn't start.
///
/// # Errors
/// The stage could not be made ready for that user.
pub(super) fn start(stage: &Stage, entry: &Entry) -> anyhow::Result<Option<String>> {
    let id = format!("{}-nobody", stage.id());
    let launch =
        entry.contender.launch(stage, &Order::new(&id, &Task::start()));
    let mut launch = match launch {
        Ok(launch) => launch,
        Err(error) => return Ok(Some(format!("{error:#}"))),
    };
    let mut handed_over = None;
    if geteuid().is_root() {
        let copies = copies(stage, entry)?;
        launch.command = as_nobody(&launch.command, &copies, &stage.runtime_folder());
        handed_over = Some(HandedOver::to(&stage.path(""), NOBODY, NOBODY)?);
    }
    let started = Instance::spawn(launch, stage.timeout).and_then(|mut instance| {
        instance.line(MARKER)?;
        instance.end()
    });
    tree::clear();
    drop(handed_over);
    Ok(started.err().map(|error| format!("{error:#}")))
}

/// The group that opens `/dev/kvm`, if there is one.
fn group() -> u32 {
    let kvm = fs::metadata("/dev/kvm").ok().filter(|kvm| kvm.mode() & 0o060 == 0o060 && kvm.gid() != 0);
    kvm.map_or(NOBODY, |kvm| kvm.gid())
}

/// `command` for that user, with `copies` of files in the place of those that it can't read.
fn as_nobody(command: &Command, copies: &[(PathBuf, PathBuf)], home: &Path) -> Command {
    let readable = |word: &OsStr| {
        copies
            .iter()
            .fold(word.to_owned(), |word, (from, to)| replaced(&word, from.as_os_str(), to.as_os_str()))
    };
    let mut own = Command::new(readable(command.get_program()));
    own.args(command.get_args().map(readable));
    own.env("HOME", home).env("XDG_RUNTIME_DIR", home);
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => own.env(key, readable(value)),
            None => own.env_remove(key),
        };
    }
    own.current_dir(command.get_current_dir().unwrap_or(home));
    own.uid(NOBODY).gid(group());
    own
}

/// `word` with each `from` in it replaced.
fn replaced(word: &OsStr, from: &OsStr, to: &OsStr) -> OsString {
    let (mut rest, from, mut result) = (word.as_bytes(), from.as_bytes(), Vec::new());
    while let Some(at) = rest.windows(from.len().max(1)).position(|window| window == from) {
        let (before, after) = rest.split_at(at);
        result.extend_from_slice(before);
        result.extend_from_slice(to.as_bytes());
        rest = after.get(from.len()..).unwrap_or_default();
    }
    result.extend_from_slice(rest);
    OsString::from_vec(result)
}

/// Copies files that the contender needs and not everyone can read into the stage. A program that lies where only root looks
/// would tell nothing of the contender.
fn copies(stage: &Stage, entry: &Entry) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let folder = stage.path("readable");
    let ours = stage.path("");
    let mut copies = Vec::new();
    for (number, (_, path)) in entry.prepared.ships.iter().enumerate() {
        if !path.is_file() || path.starts_with(&ours) || all_can_read(path) {
            continue;
        }
        let name = format!("{number}-{}", path.file_name().unwrap_or_default().to_string_lossy());
        let copy = folder.join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        fs::copy(path, &copy).with_context(|| format!("{} could not be copied", path.display()))?;
        copies.push((path.clone(), copy));
    }
    Ok(copies)
}

/// Whether the modes of the file and of all folders above let everyone read it.
fn all_can_read(path: &Path) -> bool {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |file| file.mode());
    let Ok(path) = path.canonicalize() else { return false };
    mode(&path) & 0o004 != 0 && path.ancestors().skip(1).all(|folder| mode(folder) & 0o001 != 0)
}

/// A file, and whose it was.
struct Owned {
    path: PathBuf,
    user: u32,
    group: u32,
    mode: u32,
    link: bool,
}

/// A folder and all below that belong to another user until this is dropped.
struct HandedOver(Vec<Owned>);

impl HandedOver {
    fn to(folder: &Path, user: u32, group: u32) -> anyhow::Result<Self> {
        let mut handed_over = Self(Vec::new());
        let file_system = fs::symlink_metadata(folder).with_context(|| folder.display().to_string())?.dev();
        let mut rest = vec![folder.to_owned()];
        while let Some(path) = rest.pop() {
            // What ends meanwhile takes its files along.
            let Ok(file) = fs::symlink_metadata(&path) else { continue };
            // A file with other names may be one of the host's.
            if file.dev() != file_system || (file.is_file() && file.nlink() > 1) {
                continue;
            }
            lchown(&path, Some(user), Some(group)).with_context(|| path.display().to_string())?;
            if file.is_dir() {
                rest.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
            }
            let (user, group, mode, link) = (file.uid(), file.gid(), file.mode(), file.is_symlink());
            handed_over.0.push(Owned { path, user, group, mode, link });
        }
        Ok(handed_over)
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        for Owned { path, user, group, mode, link } in &self.0 {
            // What was removed meanwhile needs nothing.
            let _ = lchown(path, Some(*user), Some(*group));
            if mode & SET_ID != 0 && !link {
                let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o7777));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_the_copies_of_files_that_not_everyone_can_read() {
        let mut command = Command::new("/root/vmm");
        command
            .args(["--disk", "/root/image,readonly", "--kernel", "/root/vmlinux"])
            .env("X", "/root/vmlinux");
        let copies = [("/root/vmm", "/s/0"), ("/root/image", "/s/1"), ("/root/vmlinux", "/s/2")];
        let copies = copies.map(|(from, to)| (from.into(), to.into()));
        let own = as_nobody(&command, &copies, Path::new("/s/run"));
        assert_eq!(
            crate::compare::contender::words(&own),
            ["/s/0", "--disk", "/s/1,readonly", "--kernel", "/s/2"]
        );
        assert!(own.get_envs().any(|(key, value)| key == "X" && value == Some(OsStr::new("/s/2"))));
    }

    #[test]
    fn a_folder_that_was_handed_over_comes_back_as_it_was() -> anyhow::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("program");
        fs::write(&file, "")?;
        fs::set_permissions(&file, Permissions::from_mode(0o4755))?;
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link"))?;
        let handed_over = HandedOver::to(folder.path(), NOBODY, NOBODY)?;
        assert_eq!(fs::metadata(&file)?.uid(), NOBODY);
        assert_eq!(fs::metadata("/etc/passwd")?.uid(), 0);
        drop(handed_over);
        let after = fs::metadata(&file)?;
        assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (0, 0, 0o4755));
        Ok(())
    }

    #[test]
    fn a_file_below_a_closed_folder_is_not_for_everyone() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("file"), "")?;
        fs::set_permissions(folder.path().join("file"), Permissions::from_mode(0o644))?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700))?;
        assert!(!all_can_read(&folder.path().join("file")));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        assert!(all_can_read(&folder.path().join("file")));
        Ok(())
    }
}
