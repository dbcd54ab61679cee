//! Network: TCP and ping between the guest and the host, over a tap.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::HostSide;
use crate::options::Options;
use crate::session::MEASURE;
use crate::vmms::Devices;

const TAP: &str = "rvmmbench0";
const HOST: &str = "172.31.255.1";
const GUEST: &str = "172.31.255.2";

/// The tap, and iperf3's server behind it.
pub(crate) struct Network {
    server: Child,
}

impl Network {
    /// # Panics
    /// Without the rights to make a tap, or without `ip` or `iperf3`.
    pub(crate) fn new() -> Self {
        // One that an earlier run has left is as good.
        let _ = Command::new("ip").args(["tuntap", "add", TAP, "mode", "tap"]).stderr(Stdio::null()).status();
        ip(&["address", "replace", &format!("{HOST}/30"), "dev", TAP]);
        ip(&["link", "set", TAP, "up"]);
        let server = Command::new("iperf3")
            .args(["--server", "--bind", HOST])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("iperf3: {error}; resources/setup bench installs it"));
        while TcpStream::connect((HOST, 5201)).is_err() {
            thread::sleep(Duration::from_millis(100));
        }
        Self { server }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("ip").args(["link", "delete", TAP]).status();
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {}", args.join(" "));
}

impl HostSide for Network {
    fn devices(&self) -> Devices {
        Devices { tap: Some(TAP), ..Devices::default() }
    }

    fn script(&self, options: &Options) -> String {
        let seconds = options.seconds.ceil();
        // Of iperf3, what has arrived; of the pings, the median.
        format!(
            "ip address add {GUEST}/30 dev eth0; ip link set eth0 up; ping -c 2 {HOST} >/dev/null; {MEASURE}\
             t() {{ iperf3 -f m -t {seconds} -c {HOST} $* | awk '/receiver/ {{print $5,$7}}' | \
             while read b r; do echo mib=$b mbit_per_second=$r; done; }}; \
             p() {{ ping -c 41 -i 0.05 {HOST} | sed -n 's/.*time=\\([0-9.]*\\).*/\\1/p' | sort -n | sed -n '21s/.*/requests=41 median_ms=&/p'; }}; \
             m tcp-out t; m tcp-in t -R; m ping p"
        )
    }
}
