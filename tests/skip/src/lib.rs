//! Skips the tests that a host cannot run, for the tests of all packages.
//!
//! A skipped test passes, after a line `SKIPPED: TEST: REASON` on stderr, which the test harness does not capture and
//! `tests/run` counts. Where `RVMM_REQUIRE` names what the test lacks, it fails instead. `RVMM_REQUIRE` is a list of
//! [capabilities](Capability::name) with commas in between, or `all`.

use std::fmt::Display;
use std::io::Write as _;
use std::{env, thread};

/// The variable that lists what must not be missing.
const REQUIRE: &str = "RVMM_REQUIRE";

/// What a host may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// A `/dev/kvm` that this user may open.
    Kvm,
    /// The rights of root.
    Root,
    /// User namespaces, in which anybody may mount and make network devices.
    UserNamespaces,
    /// userfaultfd(2), for this user.
    Userfaultfd,
    /// The ioctl `PAGEMAP_SCAN`, which Linux 6.7 brought.
    PagemapScan,
    /// `/dev/vhost-net`, and the right to make a tap.
    VhostNet,
    /// `O_DIRECT` on the file system of the temporary folder.
    DirectIo,
    /// A temporary folder on a disk, not on a tmpfs.
    Disk,
    /// A TSC of their own for guests. (On PVM they read the host's.)
    GuestTsc,
    /// A processor with fast string instructions, `erms` in `/proc/cpuinfo`.
    Erms,
    /// Kernels and images for Linux guests, and a host that runs those.
    LinuxGuests,
    /// Time for the long tests.
    LongTests,
    /// A program of another package.
    Programs,
    /// A container runtime that is installed and starts something.
    Runtimes,
}

impl Capability {
    /// Every one of them.
    pub const ALL: [Self; 14] = [
        Self::Kvm,
        Self::Root,
        Self::UserNamespaces,
        Self::Userfaultfd,
        Self::PagemapScan,
        Self::VhostNet,
        Self::DirectIo,
        Self::Disk,
        Self::GuestTsc,
        Self::Erms,
        Self::LinuxGuests,
        Self::LongTests,
        Self::Programs,
        Self::Runtimes,
    ];

    /// Its name in `RVMM_REQUIRE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Root => "root",
            Self::UserNamespaces => "user-namespaces",
            Self::Userfaultfd => "userfaultfd",
            Self::PagemapScan => "pagemap-scan",
            Self::VhostNet => "vhost-net",
            Self::DirectIo => "direct-io",
            Self::Disk => "disk",
            Self::GuestTsc => "guest-tsc",
            Self::Erms => "erms",
            Self::LinuxGuests => "linux-guests",
            Self::LongTests => "long-tests",
            Self::Programs => "programs",
            Self::Runtimes => "runtimes",
        }
    }
}

/// Reports that the running test is skipped, wholly or in part, because the host lacks `capability`.
///
/// # Panics
/// When `RVMM_REQUIRE` names the capability, or something unknown.
#[track_caller]
pub fn skip(capability: Capability, reason: impl Display) {
    let required = env::var_os(REQUIRE).unwrap_or_default().to_string_lossy().into_owned();
    match requires(&required, capability) {
        Ok(false) => {}
        Ok(true) => panic!("{REQUIRE} is {required:?}, and {} is missing: {reason}", capability.name()),
        Err(unknown) => panic!("{REQUIRE} is {required:?}: there is no capability {unknown:?}"),
    }
    let thread = thread::current();
    // In one piece, since other tests write at the same time.
    let line = format!("SKIPPED: {}: {reason}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The value of `result`. If there is none, the running test is skipped because of the error.
///
/// # Panics
/// As [`skip`].
#[track_caller]
pub fn available<T, E: Display>(capability: Capability, result: Result<T, E>) -> Option<T> {
    result.map_err(|error| skip(capability, error)).ok()
}

/// Whether the program `name` is on `PATH`. If it isn't, the running test is skipped.
///
/// # Panics
/// As [`skip`].
#[track_caller]
pub fn has_program(capability: Capability, name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if !found {
        skip(capability, format!("{name} is not installed"));
    }
    found
}

/// Whether `list` names `capability`; the first name that is not known, if there is one.
fn requires(list: &str, capability: Capability) -> Result<bool, &str> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut required = false;
    for name in names {
        if name != "all" && !Capability::ALL.iter().any(|known| known.name() == name) {
            return Err(name);
        }
        required |= name == "all" || name == capability.name();
    }
    Ok(required)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_requires_what_it_names() {
        for list in ["", ",", "root", "kvm", "root,kvm", "kvm, root"] {
            assert_eq!(requires(list, Capability::Kvm), Ok(list.contains("kvm")), "{list:?}");
        }
        for capability in Capability::ALL {
            assert_eq!(requires("all", capability), Ok(true));
            assert_eq!(requires(capability.name(), capability), Ok(true));
        }
        for (list, unknown) in [("kmv", "kmv"), ("all,1", "1"), ("kvm,ALL", "ALL")] {
            assert_eq!(requires(list, Capability::Kvm), Err(unknown), "{list:?}");
        }
    }

    #[test]
    fn every_capability_has_a_name_of_its_own() {
        let mut names = Capability::ALL.map(Capability::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Capability::ALL.len());
    }
}
