//! Network: TCP and ping between the guest and the host, over a tap.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::HostSide;
use super::session::MEASURE;
use super::vmms::Devices;
use crate::args::IoArgs;
use crate::compare::interrupt;
use crate::own::children::{self, Killed};
use crate::own::output::PATIENCE;
use crate::own::tap::{Tap, ip};

const TAP: &str = "rvmmbench0";
const HOST: &str = "172.31.255.1";
const GUEST: &str = "172.31.255.2";

/// The tap, and iperf3's server behind it.
pub(crate) struct Network {
    // Dropped in this order.
    _server: Killed,
    tap: Tap,
}

impl Network {
    /// Makes the tap and starts the server.
    ///
    /// # Errors
    /// There is no right to make a tap, or no `ip`, or no `iperf3`.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let tap = Tap::new(TAP)?;
        ip(&["address", "replace", &format!("{HOST}/30"), "dev", TAP])?;
        ip(&["link", "set", TAP, "up"])?;
        let mut iperf3 = Command::new("iperf3");
        iperf3.args(["--server", "--bind", HOST]);
        iperf3.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = children::spawn(&mut iperf3).context("Debian's package iperf3 brings it")?;
        let begin = Instant::now();
        while let Err(error) = TcpStream::connect((HOST, 5201)) {
            interrupt::check()?;
            ensure!(begin.elapsed() < PATIENCE, "iperf3 at {HOST}, port 5201: {error}");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Self { _server: server, tap })
    }
}

impl HostSide for Network {
    fn devices(&self) -> Devices {
        Devices { tap: Some(self.tap.name()), ..Devices::default() }
    }

    fn script(&self, args: &IoArgs) -> String {
        let seconds = args.seconds.ceil();
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
