//! Mounts, as the kernel lists them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::mount::{MntFlags, umount2};

/// How often mounts are looked for: there may be one over another.
const PASSES: usize = 100;

/// A mount that this process sees.
pub(super) struct Mount {
    pub(super) point: PathBuf,
    /// The kind of its file system.
    pub(super) kind: Vec<u8>,
}

/// All mounts, in the order in which the kernel has them.
///
/// # Errors
/// There is no /proc.
pub(super) fn all() -> io::Result<Vec<Mount>> {
    let list = fs::read("/proc/self/mountinfo")?;
    Ok(list.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// A line such as `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&byte| byte == b' ');
    let point = PathBuf::from(OsString::from_vec(unescaped(words.nth(4)?)));
    words.find(|&word| word == b"-")?;
    Some(Mount { point, kind: words.next()?.to_vec() })
}

/// A path of that list: spaces, tabs, line ends and backslashes are `\` and three octal digits there.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let escaped = match rest {
            [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'))
            }
            _ => None,
        };
        path.push(escaped.unwrap_or(*first));
        text = rest.get(if escaped.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    path
}

/// Unmounts what is mounted at or below `folder`, the last first. Returns what is mounted there still.
///
/// # Errors
/// It cannot be told.
pub(super) fn unmount(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut before = usize::MAX;
    for _ in 0..PASSES {
        let mut left = all()?;
        left.retain(|mount| mount.point.starts_with(folder));
        if left.is_empty() || left.len() >= before {
            return Ok(left.into_iter().map(|mount| mount.point).collect());
        }
        before = left.len();
        for mount in left.iter().rev() {
            let _ = umount2(&mount.point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
    Ok(all()?.into_iter().map(|mount| mount.point).filter(|point| point.starts_with(folder)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_may_have_spaces() {
        let line = br"36 35 98:0 / /a\040b\134c\011\9 rw,noatime master:1 - ext3 /dev/root rw";
        let mount = parse(line).map(|mount| (mount.point, mount.kind));
        assert_eq!(mount, Some((PathBuf::from("/a b\\c\t\\9"), b"ext3".to_vec())));
    }
}
