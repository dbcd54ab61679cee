//! Memory for guests: how much there is, how large its pages are, and whether it can be filled on demand.

use std::io;

use super::report::Check;
use super::{device_file, read, syscalls};

pub(super) fn checks() -> Vec<Check> {
    let meminfo = read("/proc/meminfo").unwrap_or_default();
    let thp = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let uffd_device = device_file::open("/dev/userfaultfd") == device_file::Opening::Opened;
    vec![
        available(kib(&meminfo, "MemAvailable")),
        huge_pages(thp.as_deref(), kib(&meminfo, "HugePages_Free").unwrap_or_default()),
        userfaultfd(
            syscalls::userfaultfd(syscalls::Faults::All),
            syscalls::userfaultfd(syscalls::Faults::OfUserMode),
            uffd_device,
        ),
    ]
}

/// A field of `/proc/meminfo`, in KiB unless it counts pages.
fn kib(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn available(kib: Option<u64>) -> Check {
    /// The memory of a VM when none is asked for.
    const DEFAULT_KIB: u64 = 128 << 10;
    const NAME: &str = "memory";
    match kib {
        None => Check::limited(NAME, "/proc/meminfo does not tell how much is available"),
        Some(kib) if kib < DEFAULT_KIB => Check::limited(
            NAME,
            format!("{} MiB available, less than the 128 MiB of a default VM", kib >> 10),
        )
        .mend("end something else, or run small guests with --memory"),
        Some(kib) => Check::ok(NAME, format!("{} MiB available", kib >> 10)),
    }
}

fn huge_pages(thp: Option<&str>, reserved: u64) -> Check {
    const NAME: &str = "huge pages";
    // The kernel shows the choice in brackets: "always [madvise] never".
    let chosen = thp.and_then(|all| all.split('[').nth(1)?.split(']').next()).unwrap_or("never");
    let finding = format!("transparent: {chosen}; reserved and free: {reserved}");
    if chosen == "never" {
        Check::limited(
            NAME,
            format!("{finding}; guests run on 4 KiB pages, slower to touch first and to translate"),
        )
        .mend("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
    } else {
        Check::ok(NAME, finding)
    }
}

fn userfaultfd(all: io::Result<()>, of_user_mode: io::Result<()>, device: bool) -> Check {
    const NAME: &str = "userfaultfd";
    const LOSS: &str = "a snapshot's memory can't be loaded page by page as the guest touches it";
    const MEND: &str =
        "sudo setfacl -m u:\"$USER\":rw /dev/userfaultfd, or sudo sysctl -w vm.unprivileged_userfaultfd=1";
    match (all, of_user_mode) {
        (Ok(()), _) => Check::ok(NAME, "by system call"),
        (Err(_), _) if device => Check::ok(NAME, "by /dev/userfaultfd"),
        (Err(_), Ok(())) => {
            Check::limited(NAME, format!("not for faults in the kernel, which KVM's are, so {LOSS}"))
                .mend(MEND)
        }
        (Err(error), Err(_)) if error.raw_os_error() == Some(libc::ENOSYS) => {
            Check::missing(NAME, format!("this kernel is built without it: {LOSS}"))
                .mend("a kernel with CONFIG_USERFAULTFD=y")
        }
        (Err(error), Err(_)) => Check::missing(NAME, format!("{error}: {LOSS}")).mend(MEND),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    fn errno(number: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(number))
    }

    #[test]
    fn a_field_of_meminfo_is_found_by_its_whole_name() {
        let meminfo =
            "MemTotal:  100 kB\nMemAvailableX: 1 kB\nMemAvailable:   2048 kB\nHugePages_Free:   3\n";
        assert_eq!(kib(meminfo, "MemAvailable"), Some(2048));
        assert_eq!(kib(meminfo, "HugePages_Free"), Some(3));
        assert_eq!(kib(meminfo, "Mem"), None);
    }

    #[test]
    fn less_memory_than_a_default_vm_has_is_a_limit() {
        assert_eq!(available(Some(128 << 10)).status, Status::Ok);
        assert_eq!(available(Some((128 << 10) - 1)).status, Status::Limited);
        assert_eq!(available(None).status, Status::Limited);
    }

    #[test]
    fn huge_pages_are_those_in_brackets() {
        assert_eq!(huge_pages(Some("always [madvise] never"), 0).status, Status::Ok);
        assert_eq!(huge_pages(Some("[always] madvise never"), 0).status, Status::Ok);
        assert_eq!(huge_pages(Some("always madvise [never]"), 4).status, Status::Limited);
        assert_eq!(huge_pages(None, 0).status, Status::Limited);
    }

    #[test]
    fn userfaultfd_has_several_ways_in() {
        assert_eq!(userfaultfd(Ok(()), Ok(()), false).status, Status::Ok);
        assert_eq!(userfaultfd(errno(libc::EPERM), Ok(()), true).status, Status::Ok);
        assert_eq!(userfaultfd(errno(libc::EPERM), Ok(()), false).status, Status::Limited);
        let refused = userfaultfd(errno(libc::EPERM), errno(libc::EPERM), false);
        assert!(refused.mend.unwrap().contains("vm.unprivileged_userfaultfd=1"));
        let absent = userfaultfd(errno(libc::ENOSYS), errno(libc::ENOSYS), false);
        assert!(absent.mend.unwrap().contains("CONFIG_USERFAULTFD"));
    }
}
