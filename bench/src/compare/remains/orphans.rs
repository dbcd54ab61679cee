//! Networks of comparisons whose folders are gone: the name alone tells whose they were, so that more has to agree.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::{env, fs};

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::claim::LOCK;
use super::{PREFIX, delete_networks};
use crate::compare::network::BRIDGE_MAC;

/// How many characters the end of a folder's name has.
const SUFFIX: usize = 6;

/// What every comparison has among its arguments.
const VERB: &str = "compare";

/// Removes networks that have their namespace of a server and their bridge, and neither a folder, in `parent` or where
/// folders usually are, nor a process that knows one.
pub(super) fn remove(parent: &Path) {
    if !geteuid().is_root() {
        return;
    }
    // Who shares the host's network but not its file systems has no namespaces there.
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(suffix) = name.to_str().and_then(of_server) else { continue };
        let prefix = format!("rb{suffix}");
        let folder = format!("{PREFIX}{suffix}");
        let temporary = env::temp_dir();
        let places = [parent, &temporary, Path::new("/tmp"), Path::new("/var/tmp"), Path::new("/dev/shm")];
        let known = places.iter().any(|place| place.join(&folder).symlink_metadata().is_ok());
        if !known && is_bridge(&format!("{prefix}b")) && !may_live(Path::new("/proc"), &folder) {
            delete_networks(|name| name.strip_prefix(&prefix).is_some_and(is_end));
        }
    }
}

/// What the name of a server's namespace has of its comparison's folder.
fn of_server(name: &str) -> Option<&str> {
    let suffix = name.strip_prefix("rb")?.strip_suffix('s')?;
    (suffix.len() == SUFFIX && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(suffix)
}

/// Whether a name of ours ends so: the bridge, the server's namespace and device, or an instance's and its number.
fn is_end(end: &str) -> bool {
    let number = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    matches!(end, "b" | "p" | "s") || end.strip_prefix(['d', 'n']).is_some_and(number)
}

/// Whether there is a bridge of that name with the address that all of ours have.
fn is_bridge(name: &str) -> bool {
    let device = Path::new("/sys/class/net").join(name);
    device.join("bridge").is_dir()
        && fs::read_to_string(device.join("address")).is_ok_and(|address| address.trim() == BRIDGE_MAC)
}

/// Whether a process of those in `proc` has `folder`'s name among its arguments or in its environment, or its lock open. One that does not let that
/// be seen counts too if it may be a comparison by its arguments, which everybody sees.
fn may_live(proc: &Path, folder: &str) -> bool {
    let Ok(processes) = fs::read_dir(proc) else { return true };
    let mut processes = processes.flatten().filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    processes.any(|process| {
        let process = process.path();
        let arguments = match fs::read(process.join("cmdline")) {
            Ok(arguments) => arguments,
            Err(error) => return !has_ended(&error),
        };
        has(&arguments, folder)
            || knows(&process, folder).unwrap_or_else(|error| !has_ended(&error) && has(&arguments, VERB))
    })
}

fn has(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|part| part == text.as_bytes())
}

fn knows(process: &Path, folder: &str) -> io::Result<bool> {
    if has(&fs::read(process.join("environ"))?, folder) {
        return Ok(true);
    }
    let lock = format!("/{folder}/{LOCK}");
    for file in fs::read_dir(process.join("fd"))?.flatten() {
        match fs::read_link(file.path()) {
            Ok(target) if target.to_string_lossy().contains(&lock) => return Ok(true),
            Err(error) if !has_ended(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_form_are_ours() {
        assert_eq!(of_server("rba1B2c3s"), Some("a1B2c3"));
        for other in ["rba1B2c3b", "rba1B2cs", "rba1B2c34s", "rba1-2c3s", "xba1B2c3s", "rbs", ""] {
            assert_eq!(of_server(other), None, "{other}");
        }
        assert!(["b", "p", "s", "d0", "n9999"].into_iter().all(is_end));
        assert!(!["", "d", "n12345", "dx", "bb", "s1"].into_iter().any(is_end));
    }

    /// A folder like `/proc`, with one process: its command line, environment, and what its descriptor leads to.
    fn proc_with(cmdline: &str, environ: &str, fd: &str) -> anyhow::Result<tempfile::TempDir> {
        let proc = tempfile::tempdir()?;
        let process = proc.path().join("17");
        fs::create_dir_all(process.join("fd"))?;
        fs::write(process.join("cmdline"), cmdline)?;
        fs::write(process.join("environ"), environ)?;
        std::os::unix::fs::symlink(fd, process.join("fd/3"))?;
        Ok(proc)
    }

    #[test]
    fn who_knows_the_folder_lives() -> anyhow::Result<()> {
        let folder = "rvmm-bench-a1B2c3";
        let lock = format!("/tmp/{folder}/{LOCK}");
        for (cmdline, environ, fd, lives) in [
            ("rvmm-bench\0compare", "HOME=/", "/dev/null", false),
            ("rvmm-bench\0compare\0/tmp/rvmm-bench-a1B2c3", "HOME=/", "/dev/null", true),
            ("bench\0idle", "FOLDER=/tmp/rvmm-bench-a1B2c3", "/dev/null", true),
            ("bench\0idle", "HOME=/", &*lock, true),
            ("bench\0idle", "HOME=/", "/tmp/rvmm-bench-zzzzzz/lock", false),
        ] {
            let proc = proc_with(cmdline, environ, fd)?;
            assert_eq!(may_live(proc.path(), folder), lives, "{cmdline:?} {environ:?} {fd}");
        }
        assert!(may_live(Path::new("/no/such/folder"), folder), "nothing can be seen");
        Ok(())
    }

    #[test]
    fn who_cannot_be_looked_into_lives_if_it_may_be_a_comparison() -> anyhow::Result<()> {
        for (cmdline, lives) in [("rvmm-bench\0compare", true), ("sleep\0infinity", false)] {
            for unreadable in ["environ", "fd"] {
                let proc = proc_with(cmdline, "HOME=/", "/dev/null")?;
                let path = proc.path().join("17").join(unreadable);
                // Root may read every file, but none that is a folder, and no folder that is a file.
                if unreadable == "environ" {
                    fs::remove_file(&path)?;
                    fs::create_dir(&path)?;
                } else {
                    fs::remove_dir_all(&path)?;
                    fs::write(&path, "")?;
                }
                assert_eq!(may_live(proc.path(), "rvmm-bench-a1B2c3"), lives, "{cmdline:?}, no {unreadable}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_comparison_that_holds_its_lock_lives() -> anyhow::Result<()> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let name = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _lock = fs::File::create(folder.path().join(LOCK))?;
        assert!(may_live(Path::new("/proc"), &name));
        Ok(())
    }
}
