//! What is swept, and what is not.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;
use skip::Capability;

use super::*;

fn folder(parent: &Path, suffix: &str) -> io::Result<PathBuf> {
    let folder = parent.join(format!("{PREFIX}{suffix}"));
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    Ok(folder)
}

fn age(folder: &Path) -> io::Result<()> {
    File::open(folder)?.set_modified(SystemTime::now() - 2 * NEW)
}

#[test]
fn names_on_the_network_are_the_folders_and_leave_room_for_a_device() {
    let prefix = network_prefix(Path::new("/tmp/rvmm-bench-a1B2c3"));
    assert_eq!(prefix.as_deref(), Some("rba1B2c3"));
    for other in ["", "a1B2c", "a1B2c3d", "a1B2c-", "results"] {
        assert_eq!(network_prefix(&Path::new("/tmp").join(format!("{PREFIX}{other}"))), None, "{other}");
    }
}

#[test]
fn a_folder_that_is_locked_or_new_is_left_alone() -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    let [live, new, dead, old] =
        ["live00", "new000", "dead00", "old000"].map(|name| folder(parent.path(), name));
    let (live, new, dead, old) = (live?, new?, dead?, old?);
    let lock = claim::take(&live)?;
    fs::create_dir(dead.join("rootfs"))?;
    fs::write(dead.join("rootfs/file"), "")?;
    drop(claim::take(&dead)?);
    age(&old)?;
    sweep(parent.path());
    assert_eq!([&live, &new, &dead, &old].map(|folder| folder.exists()), [true, true, false, false]);
    drop(lock);
    Ok(())
}

#[test]
fn a_folder_that_only_has_such_a_name_is_left_alone_however_old() -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    let parent = parent.path();
    let mut folders = Vec::new();
    // Names that are longer, or shorter, or of other letters.
    for suffix in ["results", "2026", "a1-2c3", ""] {
        let folder = folder(parent, suffix)?;
        drop(claim::take(&folder)?);
        folders.push(folder);
    }
    let plain = folder(parent, "plain0")?;
    fs::write(plain.join("figures"), "")?;
    let empty_lock = folder(parent, "empty0")?;
    fs::write(empty_lock.join(claim::LOCK), "")?;
    fs::set_permissions(empty_lock.join(claim::LOCK), Permissions::from_mode(0o600))?;
    let open = folder(parent, "open00")?;
    drop(claim::take(&open)?);
    fs::set_permissions(&open, Permissions::from_mode(0o775))?;
    let readable = folder(parent, "read00")?;
    drop(claim::take(&readable)?);
    fs::set_permissions(readable.join(claim::LOCK), Permissions::from_mode(0o644))?;
    // One that was a comparison's, and has another name now.
    let moved = folder(parent, "moved0")?;
    drop(claim::take(&moved)?);
    fs::rename(&moved, parent.join("rvmm-bench-kept00"))?;
    let linked = folder(parent, "link00")?;
    drop(claim::take(&linked)?);
    fs::rename(linked.join(claim::LOCK), parent.join("elsewhere"))?;
    symlink(parent.join("elsewhere"), linked.join(claim::LOCK))?;
    folders.extend([plain, empty_lock, open, readable, parent.join("rvmm-bench-kept00"), linked]);
    for folder in &folders {
        age(folder)?;
    }
    sweep(parent);
    for folder in &folders {
        assert!(folder.exists() && fs::read_dir(folder)?.next().is_some(), "{}", folder.display());
    }
    Ok(())
}

#[test]
fn what_is_mounted_in_a_folder_outlives_it() -> anyhow::Result<()> {
    if !geteuid().is_root() {
        skip::skip(Capability::Root, "only root can mount");
        return Ok(());
    }
    let parent = tempfile::Builder::new().prefix("a b\t").tempdir()?;
    let kept = parent.path().join("kept");
    fs::create_dir(&kept)?;
    fs::write(kept.join("file"), "worth keeping")?;
    let folder = folder(parent.path(), "a1B2c3")?;
    drop(claim::take(&folder)?);
    let point = folder.join("c d");
    fs::create_dir(&point)?;
    // One over the other.
    for _ in 0..2 {
        match mount(Some(&kept), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            Err(Errno::EPERM) => {
                skip::skip(Capability::Root, "this root may not mount");
                return Ok(());
            }
            mounted => mounted?,
        }
    }
    assert!(point.join("file").exists());
    remove_abandoned(&folder);
    assert!(!folder.exists());
    assert_eq!(fs::read_to_string(kept.join("file"))?, "worth keeping");
    Ok(())
}
