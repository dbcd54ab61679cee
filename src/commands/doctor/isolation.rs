//! What can confine a VM on the host: control groups that its user makes, and seccomp (`--seccomp-filter`).

use std::io;

use super::report::Check;
use super::{read, syscalls};

pub(super) fn checks() -> Vec<Check> {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    let cgroup = cgroup2_mount(&mounts);
    let controllers = cgroup.and_then(|path| read(&format!("{path}/cgroup.controllers")));
    vec![
        cgroup2(cgroup, controllers.as_deref().unwrap_or_default()),
        seccomp(read("/proc/sys/kernel/seccomp/actions_avail").as_deref(), &syscalls::seccomp()),
    ]
}

/// Where cgroup v2 is mounted, from text like `/proc/self/mounts`.
fn cgroup2_mount(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(path)
    })
}

fn cgroup2(mount: Option<&str>, controllers: &str) -> Check {
    const NAME: &str = "cgroup v2";
    const MEND: &str =
        "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all on the kernel command line";
    const WANTED: [&str; 4] = ["cpu", "io", "memory", "pids"];
    let Some(mount) = mount else {
        return Check::missing(NAME, "not mounted: a VM's use of the host can't be limited or counted")
            .mend("sudo mount -t cgroup2 none /sys/fs/cgroup, or boot a distribution that does");
    };
    let has = |wanted: &&&str| controllers.split_ascii_whitespace().any(|controller| controller == **wanted);
    let absent: Vec<&str> = WANTED.iter().filter(|wanted| !has(wanted)).copied().collect();
    if absent.is_empty() {
        Check::ok(NAME, format!("at {mount}, with {controllers}"))
    } else {
        let absent = absent.join(", ");
        Check::limited(
            NAME,
            format!("at {mount}, without {absent}: a VM's use of these can't be limited or counted"),
        )
        .mend(MEND)
    }
}

fn seccomp(actions: Option<&str>, mode: &io::Result<()>) -> Check {
    const NAME: &str = "seccomp";
    match (actions, mode) {
        (Some(actions), Ok(()))
            if actions.split_ascii_whitespace().any(|action| action == "kill_process") =>
        {
            Check::ok(NAME, "filters can end a process")
        }
        (_, Ok(())) => {
            Check::limited(NAME, "filters can only end a thread, not the process (Linux before 4.14)")
                .mend("a newer kernel")
        }
        _ => Check::missing(NAME, "no filters: --seccomp-filter cannot be used")
            .mend("a kernel with CONFIG_SECCOMP_FILTER=y"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn cgroup_v2_is_found_among_the_mounts() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2_mount("cgroup2 /x tmpfs rw 0 0\n"), None);
    }

    #[test]
    fn absent_controllers_are_named() {
        let all = cgroup2(Some("/sys/fs/cgroup"), "cpuset cpu io memory hugetlb pids");
        assert_eq!(all.status, Status::Ok);
        let some = cgroup2(Some("/sys/fs/cgroup"), "cpuset memory pids");
        assert_eq!(some.status, Status::Limited);
        assert!(some.finding.contains("without cpu, io:"), "{}", some.finding);
        assert_eq!(cgroup2(None, "").status, Status::Missing);
    }

    #[test]
    fn seccomp_must_be_able_to_end_the_process() {
        assert_eq!(seccomp(Some("kill_process kill_thread errno allow"), &Ok(())).status, Status::Ok);
        assert_eq!(seccomp(None, &Ok(())).status, Status::Limited);
        let absent = Err(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(seccomp(None, &absent).status, Status::Missing);
    }
}
