//! Network interfaces of Linux guests: over a tap, and over passt. Each test has a network of the host for itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::guest::COMPLAINTS;
use super::{Guest, require_linux_guests};
use crate::support::{Rvmm, poll, process};

/// A tap with a DHCP server behind it.
const TAP: &str = "ip tuntap add tap0 mode tap; ip address add 10.7.0.1/24 dev tap0; ip link set tap0 up; \
    busybox httpd -p 10.7.0.1:80 -h $FOLDER; \
    printf 'start 10.7.0.20\\nend 10.7.0.30\\ninterface tap0\\nopt subnet 255.255.255.0\\nopt router 10.7.0.1\\nlease_file /dev/null\\npidfile /dev/null\\n' >$FOLDER/udhcpd.conf; \
    busybox udhcpd -S $FOLDER/udhcpd.conf";
/// A host with one interface that leads outside, and an address that answers there.
pub(super) const OUTSIDE: &str = "ip link add dummy0 type dummy; ip address add 192.0.2.2/24 dev dummy0; ip link set dummy0 up; \
    ip route add default via 192.0.2.1; ip address add 198.51.100.1/32 dev lo; \
    busybox httpd -p 198.51.100.1:80 -h $FOLDER";

/// A network of the host, and a folder that its HTTP server shows.
pub(super) struct Host {
    folder: TempDir,
    script: &'static str,
}

impl Host {
    pub(super) fn new(script: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let noise: Vec<u8> =
            (0..2_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(folder.path().join("noise"), noise).unwrap();
        Self { folder, script }
    }

    /// The guest on this host.
    pub(super) fn guest(&self, guest: impl FnOnce(Rvmm) -> Guest) -> Guest {
        let mut command = Command::new("unshare");
        let script = format!("ip link set lo up; {}; exec \"$@\"", self.script);
        command.args(["--net", "sh", "-ec", &script, "sh", env!("CARGO_BIN_EXE_rvmm")]);
        command.env("FOLDER", self.folder.path());
        guest(Rvmm::within(command))
    }

    fn md5(&self) -> String {
        let output = Command::new("md5sum").arg(self.folder.path().join("noise")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
    }
}

/// Runs a program in the network of process `pid`; its standard output.
fn in_network_of(pid: u32, program: &[&str]) -> String {
    let output = Command::new("nsenter").args(["--net", "--target", &pid.to_string()]).args(program).output();
    String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
}

/// The passt that process `pid` has started.
fn passt_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().find_map(|child| child.parse().ok())
}

#[test]
fn a_guest_on_a_tap_gets_an_address_and_talks_to_the_host() {
    require_linux_guests!();
    for (transport, net) in [
        ("mmio", "tap=tap0,mac=02:00:00:00:00:07"),
        ("pci", "tap=tap0,mac=02:00:00:00:00:07"),
        ("mmio", "tap=tap0,mac=02:00:00:00:00:07,vhost=on"),
        ("pci", "tap=tap0,mac=02:00:00:00:00:07,vhost=on"),
    ] {
        let host = Host::new(TAP);
        let report = host
            .guest(|rvmm| Guest::debian_from(rvmm, "6_12"))
            .arg("--transport")
            .arg(transport)
            .arg("--net")
            .arg(net)
            .run(&format!(
                "ip -4 -o address show dev eth0; cat /sys/class/net/eth0/address; ping -c 3 10.7.0.1; \
                 echo sum $(wget -q -O - http://10.7.0.1/noise | md5sum); {COMPLAINTS}"
            ));
        report.assert_line("02:00:00:00:00:07").assert_no_complaints();
        assert!(report.text().contains(" 10.7.0.2"), "{}", report.text());
        assert!(report.text().contains("3 packets received, 0% packet loss"), "{}", report.text());
        assert_eq!(report.value("sum"), format!("{} -", host.md5()));
    }
}

#[test]
fn a_guest_on_passt_gets_an_address_and_reaches_what_the_host_reaches() {
    require_linux_guests!();
    let host = Host::new(OUTSIDE);
    let report = host.guest(|rvmm| Guest::debian_from(rvmm, "6_12")).arg("--net").run(&format!(
        "ip -4 -o address show dev eth0; ip route; echo mtu $(cat /sys/class/net/eth0/mtu); \
         echo sum $(wget -q -O - http://198.51.100.1/noise | md5sum); {COMPLAINTS}"
    ));
    report.assert_line("mtu 65520").assert_no_complaints();
    assert!(report.text().contains(" 192.0.2.2/24 "), "{}", report.text());
    assert!(report.text().contains("default via 192.0.2.1 dev eth0"), "{}", report.text());
    assert_eq!(report.value("sum"), format!("{} -", host.md5()));
}

#[test]
fn a_published_port_leads_to_the_guest_and_passt_s_end_takes_the_link_down() {
    require_linux_guests!();
    let host = Host::new(OUTSIDE);
    let mut guest = host
        .guest(|rvmm| Guest::debian_from(rvmm, "6_12"))
        .arg("--net")
        .arg("user,publish=127.0.0.1:8080:80")
        .running(
            "mkdir /tmp/www; echo served by the guest >/tmp/www/page; httpd -p 80 -h /tmp/www; echo is-up; \
             while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done; echo link-is-down",
        )
        .launch();
    guest.wait_for("is-up\r\n");
    let pid = guest.pid();
    let mut page = String::new();
    let fetched = poll(|| {
        page = in_network_of(pid, &["wget", "-q", "-T", "20", "-O", "-", "http://127.0.0.1:8080/page"]);
        !page.is_empty()
    });
    assert!(fetched);
    assert_eq!(page, "served by the guest\n");
    process::kill(passt_of(pid).expect("a passt"), libc::SIGKILL);
    guest
        .wait_for("link-is-down\r\n")
        .wait_for_log("network interface net0: the link is down, the VM goes on");
    let ended = guest.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert!(ended.stdout.contains("rvmm-exit: 0"), "{ended:#?}");
}

#[test]
fn passt_ends_with_rvmm_however_that_ends() {
    require_linux_guests!();
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let host = Host::new(OUTSIDE);
        let mut guest = host
            .guest(|rvmm| Guest::debian_from(rvmm, "6_12"))
            .arg("--net")
            .running("echo is-up; sleep 1000")
            .launch();
        guest.wait_for("is-up\r\n");
        let passt = passt_of(guest.pid()).expect("a passt");
        guest.signal(signal);
        let process = format!("/proc/{passt}");
        assert!(poll(|| !Path::new(&process).exists()), "{process} is still there after signal {signal}");
    }
}
