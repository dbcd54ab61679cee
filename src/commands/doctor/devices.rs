//! What the backends of a VM's devices need from the host.

use std::io;
use std::path::PathBuf;

use vmm::config::UserNetConfig;

use super::device_file::{self, Opening};
use super::report::Check;
use super::{read, syscalls};

pub(super) fn checks() -> Vec<Check> {
    let capabilities = read("/proc/self/status").unwrap_or_default();
    vec![
        tun(device_file::open("/dev/net/tun"), has_cap_net_admin(&capabilities)),
        passt(UserNetConfig::program()),
        vhost("/dev/vhost-net", "vhost_net", "a guest's network"),
        io_uring(&syscalls::io_uring(), read("/proc/sys/kernel/io_uring_disabled").as_deref()),
    ]
}

fn tun(opening: Opening, net_admin: bool) -> Check {
    const NAME: &str = "/dev/net/tun";
    const LOSS: &str = "guests have a network by passt at most";
    match opening {
        Opening::Opened if net_admin => Check::ok(NAME, "opens, and taps can be made"),
        Opening::Opened => {
            Check::limited(NAME, "opens, but without CAP_NET_ADMIN a VM can only use a tap made for it")
                .mend("sudo ip tuntap add dev tap0 mode tap user \"$USER\" && sudo ip link set tap0 up")
        }
        Opening::Absent => Check::missing(NAME, format!("does not exist: {LOSS}"))
            .mend("sudo modprobe tun (in a container: pass --device /dev/net/tun)"),
        Opening::Denied { mend } => {
            Check::missing(NAME, format!("this user may not open it: {LOSS}")).mend(mend)
        }
        Opening::Failed(error) => Check::missing(NAME, format!("can't be opened: {error}: {LOSS}")),
    }
}

fn passt(program: Option<PathBuf>) -> Check {
    const NAME: &str = "passt";
    match program {
        Some(program) => Check::ok(NAME, format!("{}", program.display())),
        None => Check::missing(NAME, "is not on PATH: guests have a network by a tap at most")
            .mend("sudo apt install passt (Debian)"),
    }
}

/// Whether the effective capabilities in text like `/proc/self/status` include `CAP_NET_ADMIN`.
fn has_cap_net_admin(status: &str) -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .is_some_and(|capabilities| capabilities >> CAP_NET_ADMIN & 1 == 1)
}

fn vhost(path: &'static str, module: &str, what: &str) -> Check {
    vhost_opening(path, device_file::open(path), module, what)
}

fn vhost_opening(path: &'static str, opening: Opening, module: &str, what: &str) -> Check {
    let loss = format!("{what} can't be served in the kernel, only by rvmm itself");
    match opening {
        Opening::Opened => Check::ok(path, "opens"),
        Opening::Absent => {
            Check::missing(path, format!("does not exist: {loss}")).mend(format!("sudo modprobe {module}"))
        }
        Opening::Denied { mend } => {
            Check::missing(path, format!("this user may not open it: {loss}")).mend(mend)
        }
        Opening::Failed(error) => Check::missing(path, format!("can't be opened: {error}: {loss}")),
    }
}

fn io_uring(setup: &io::Result<()>, disabled: Option<&str>) -> Check {
    const NAME: &str = "io_uring";
    const LOSS: &str = "disks use the slower engine=sync";
    let Err(error) = setup else { return Check::ok(NAME, "a ring can be set up") };
    let check = |why: &str| Check::missing(NAME, format!("{why}: {LOSS}"));
    match (error.raw_os_error(), disabled) {
        (Some(libc::ENOSYS), _) => {
            check("this kernel has none").mend("Linux 5.1 or later with CONFIG_IO_URING=y")
        }
        (Some(libc::EPERM), Some("1" | "2")) => check("switched off by a sysctl")
            .mend("sudo sysctl -w kernel.io_uring_disabled=0 (and in /etc/sysctl.d/ to keep it)"),
        (Some(libc::EPERM), _) => check("refused, probably by a container's seccomp policy")
            .mend("a policy that allows io_uring_setup, io_uring_enter and io_uring_register"),
        (Some(libc::ENOMEM), _) => check("the limit on locked memory is too low").mend("ulimit -l unlimited"),
        _ => check(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn net_admin_is_a_bit_of_the_effective_capabilities() {
        assert!(has_cap_net_admin("CapPrm:\t0\nCapEff:\t0000000000001000\n"));
        assert!(!has_cap_net_admin("CapPrm:\t0000000000001000\nCapEff:\t000000000000efff\n"));
        assert!(!has_cap_net_admin(""));
    }

    #[test]
    fn a_tap_needs_the_device_and_a_capability() {
        assert_eq!(tun(Opening::Opened, true).status, Status::Ok);
        let limited = tun(Opening::Opened, false);
        assert_eq!(limited.status, Status::Limited);
        assert!(limited.mend.unwrap().contains("ip tuntap add"));
        assert!(tun(Opening::Absent, true).mend.unwrap().contains("modprobe tun"));
        assert_eq!(tun(Opening::Denied { mend: "join".to_owned() }, true).mend.as_deref(), Some("join"));
    }

    #[test]
    fn passt_is_looked_for_and_stops_no_vm() {
        assert_eq!(passt(Some("/usr/bin/passt".into())).status, Status::Ok);
        let check = passt(None);
        assert!(!check.required && check.status == Status::Missing);
        assert!(check.mend.unwrap().contains("apt install passt"));
    }

    #[test]
    fn an_absent_vhost_is_mended_by_its_module_and_stops_no_vm() {
        let check = vhost_opening("/dev/vhost-net", Opening::Absent, "vhost_net", "a guest's network");
        assert!(!check.required && check.status == Status::Missing);
        assert_eq!(check.mend.as_deref(), Some("sudo modprobe vhost_net"));
    }

    #[test]
    fn io_uring_says_what_keeps_it_away() {
        let mend = |errno, disabled| {
            let check = io_uring(&Err(io::Error::from_raw_os_error(errno)), disabled);
            assert!(check.finding.contains("engine=sync"), "{check:?}");
            check.mend
        };
        assert_eq!(io_uring(&Ok(()), Some("0")).status, Status::Ok);
        assert!(mend(libc::EPERM, Some("2")).unwrap().contains("io_uring_disabled=0"));
        assert!(mend(libc::EPERM, None).unwrap().contains("io_uring_setup"));
        assert!(mend(libc::ENOSYS, None).unwrap().contains("CONFIG_IO_URING"));
        assert_eq!(mend(libc::EIO, None), None);
    }
}
