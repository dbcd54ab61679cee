//! Opening a device file, and what to do when that is refused.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

/// How opening a device file for reading and writing went.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Opening {
    Opened,
    /// There is no such file, or no driver behind it.
    Absent,
    /// The rights do not suffice; what gives them.
    Denied {
        mend: String,
    },
    Failed(String),
}

pub(super) fn open(path: &str) -> Opening {
    let result = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    match result.map_err(|error| (error.kind(), error)) {
        Ok(_) => Opening::Opened,
        Err((io::ErrorKind::PermissionDenied, _)) => Opening::Denied { mend: rights(path) },
        Err((io::ErrorKind::NotFound, _)) => Opening::Absent,
        Err((_, error)) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
            Opening::Absent
        }
        Err((_, error)) => Opening::Failed(error.to_string()),
    }
}

fn rights(path: &str) -> String {
    let Ok(metadata) = fs::metadata(path) else { return rights_by_acl(path) };
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    rights_by_group(path, metadata.mode(), group_name(&groups, metadata.gid()))
}

/// A group that may read and write, and is not root's, is meant to be joined.
fn rights_by_group(path: &str, mode: u32, group: Option<&str>) -> String {
    const GROUP_READ_WRITE: u32 = 0o060;
    match group {
        Some(group) if group != "root" && mode & GROUP_READ_WRITE == GROUP_READ_WRITE => {
            format!("sudo usermod -aG {group} \"$USER\", then log in again")
        }
        _ => rights_by_acl(path),
    }
}

fn rights_by_acl(path: &str) -> String {
    format!("sudo setfacl -m u:\"$USER\":rw {path} (until the next boot)")
}

/// Looks a group's number up in text in the format of `/etc/group`.
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_file_is_absent() {
        assert_eq!(open("/dev/no-such-device"), Opening::Absent);
        assert_eq!(open("/dev/null"), Opening::Opened);
    }

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\nkvm:x:107:alice,bob\n";
        assert_eq!(group_name(groups, 107), Some("kvm"));
        assert_eq!(group_name(groups, 10), None);
    }

    #[test]
    fn the_mend_is_the_group_that_has_the_rights() {
        let mend = |mode, group| rights_by_group("/dev/kvm", mode, group);
        assert!(mend(0o660, Some("kvm")).contains("usermod -aG kvm"));
        assert!(mend(0o600, Some("kvm")).contains("setfacl -m u:\"$USER\":rw /dev/kvm"));
        assert!(mend(0o660, Some("root")).contains("setfacl"));
        assert!(mend(0o660, None).contains("setfacl"));
    }
}
