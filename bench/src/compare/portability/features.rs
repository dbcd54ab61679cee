//! Features of the host's kernel that running processes use.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use anyhow::ensure;
use procfs::process::{FDTarget, Process};

use crate::compare::isolation::is_filtered;

/// Device files that every program may have open.
const ORDINARY: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/console",
];

/// Namespaces in `/proc/PID/ns`, and what they are called. Those "for children" are left out.
const NAMESPACES: [(&str, &str); 8] = [
    ("mnt", "mount namespace"),
    ("pid", "process-id namespace"),
    ("net", "network namespace"),
    ("user", "user namespace"),
    ("uts", "host-name namespace"),
    ("ipc", "IPC namespace"),
    ("cgroup", "control-group namespace"),
    ("time", "time namespace"),
];

/// What `processes` use together.
///
/// # Errors
/// There are none, or this process can't be looked at.
pub(super) fn used(processes: &[Process]) -> anyhow::Result<Vec<String>> {
    ensure!(!processes.is_empty(), "it has no processes");
    let own = Process::myself()?;
    let mut found = BTreeSet::new();
    for process in processes {
        found.extend(namespaces(process, &own).unwrap_or_default());
        if control_groups(process).is_some_and(|groups| control_groups(&own) != Some(groups)) {
            found.insert("control group of its own".to_owned());
        }
        if is_filtered(process).unwrap_or(false) {
            found.insert("seccomp".to_owned());
        }
        found.extend(process.fd().into_iter().flatten().flatten().filter_map(|file| open(&file.target)));
    }
    Ok(found.into_iter().collect())
}

/// Those that are not ours.
fn namespaces(process: &Process, own: &Process) -> anyhow::Result<Vec<String>> {
    let (theirs, ours) = (process.namespaces()?.0, own.namespaces()?.0);
    let identifier = |of: &std::collections::HashMap<_, procfs::process::Namespace>, kind: &str| {
        of.get(OsStr::new(kind)).map(|namespace| namespace.identifier)
    };
    let other = NAMESPACES.iter().filter(|(kind, _)| {
        identifier(&theirs, kind).is_some_and(|theirs| identifier(&ours, kind) != Some(theirs))
    });
    Ok(other.map(|&(_, name)| name.to_owned()).collect())
}

/// Its place in each hierarchy.
fn control_groups(process: &Process) -> Option<BTreeSet<(u32, String)>> {
    Some(process.cgroups().ok()?.into_iter().map(|group| (group.hierarchy, group.pathname)).collect())
}

/// What an open file tells.
fn open(target: &FDTarget) -> Option<String> {
    match target {
        FDTarget::Path(path) => device(path),
        FDTarget::AnonInode(kind) if kind.contains("io_uring") => Some("io_uring".to_owned()),
        FDTarget::AnonInode(kind) if kind.contains("userfaultfd") => Some("userfaultfd".to_owned()),
        FDTarget::AnonInode(kind) if kind.contains("kvm-vm") => Some("KVM".to_owned()),
        FDTarget::AnonInode(kind) if kind.contains("bpf") => Some("BPF".to_owned()),
        _ => None,
    }
}

fn device(path: &Path) -> Option<String> {
    let name = path.to_str()?;
    let ordinary = ORDINARY.contains(&name) || name.starts_with("/dev/pts/") || name.starts_with("/dev/shm/");
    (name.starts_with("/dev/") && !ordinary).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_device_files_that_not_every_program_has_are_told() {
        let told = |path: &str| open(&FDTarget::Path(path.into()));
        assert_eq!(told("/dev/kvm").as_deref(), Some("/dev/kvm"));
        assert_eq!(told("/dev/net/tun").as_deref(), Some("/dev/net/tun"));
        for other in ["/dev/null", "/dev/pts/3", "/dev/shm/x", "/tmp/dev/kvm"] {
            assert_eq!(told(other), None);
        }
        assert_eq!(open(&FDTarget::AnonInode("[io_uring]".to_owned())).as_deref(), Some("io_uring"));
    }

    #[test]
    fn a_process_like_this_one_uses_nothing() -> anyhow::Result<()> {
        let own = Process::myself()?;
        assert!(namespaces(&own, &own)?.is_empty());
        assert!(used(&[]).is_err());
        Ok(())
    }
}
