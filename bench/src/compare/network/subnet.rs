//! Which addresses the network has.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::Context as _;

/// The first address of 198.18.0.0/15, which is set aside for benchmarks (RFC 2544, section C.2.2).
const FIRST: u32 = 0xc612_0000;

/// How many networks of ours that has.
const NETWORKS: u32 = 512;

/// Length of a network's prefix, in bits.
pub(super) const PREFIX: u8 = 24;

/// Bits of a network's addresses that are the same for all.
const MASK: u32 = 0xffff_ff00;

/// Addresses of instances, from `.3`.
const INSTANCES: u32 = 252;

/// 256 addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Subnet(u32);

/// Keeps a network from other comparisons, from before it has a route on.
#[derive(Debug)]
pub(super) struct Claim {
    _name: UnixListener,
}

impl Subnet {
    /// One that the host has no route to, but for a default route, and that is ours as long as the claim lives.
    ///
    /// # Errors
    /// The routes cannot be read, or none is left.
    pub(super) fn claim() -> anyhow::Result<(Self, Claim)> {
        let routes = fs::read_to_string("/proc/net/route").context("/proc/net/route")?;
        for subnet in Self::beside(&routes) {
            // Abstract names are those of one network namespace, as routes are.
            let name = SocketAddr::from_abstract_name(format!("rvmm-bench/{}", subnet.host()))?;
            match UnixListener::bind_addr(&name) {
                Ok(listener) => return Ok((subnet, Claim { _name: listener })),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error).context("a network cannot be claimed"),
            }
        }
        anyhow::bail!("the host has routes to all of 198.18.0.0/15, or other comparisons have it")
    }

    /// Those that are beside the routes of a `/proc/net/route`.
    fn beside(routes: &str) -> impl Iterator<Item = Self> {
        let taken: Vec<_> = routes.lines().filter_map(route).filter(|&(_, mask)| mask != 0).collect();
        (0..NETWORKS).map(|number| Self(FIRST + (number << 8))).filter(move |Self(network)| {
            // Two networks share addresses if they are the same as far as the shorter prefix goes.
            taken.iter().all(|&(to, mask)| (network ^ to) & mask & MASK != 0)
        })
    }

    /// The server's address.
    pub(super) fn server(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + 1)
    }

    /// The host's.
    pub(super) fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + 2)
    }

    /// That of the instance `number`; others have it again after 252.
    pub(super) fn instance(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + 3 + number % INSTANCES)
    }
}

/// The destination and the mask of a line of `/proc/net/route`, whose numbers are in the order of the network in memory.
fn route(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.split_ascii_whitespace();
    let to = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
    let mask = u32::from_str_radix(fields.nth(5)?, 16).ok()?;
    Some((u32::from_be(to), u32::from_be(mask)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    fn line(to: &str, mask: &str) -> String {
        format!("eth0\t{to}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
    }

    #[test]
    fn a_default_route_and_other_networks_leave_the_first_addresses() {
        let routes = HEAD.to_owned() + &line("00000000", "00000000") + &line("0002A8C0", "00FFFFFF");
        let subnet = Subnet::beside(&routes).next().unwrap();
        assert_eq!(subnet.server(), Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(subnet.host(), Ipv4Addr::new(198, 18, 0, 2));
        assert_eq!(subnet.instance(0), Ipv4Addr::new(198, 18, 0, 3));
        assert_eq!(subnet.instance(251), Ipv4Addr::new(198, 18, 0, 254));
        assert_eq!(subnet.instance(252), subnet.instance(0));
    }

    #[test]
    fn networks_that_are_taken_are_passed_over() {
        let routes = HEAD.to_owned() + &line("000012C6", "00FFFFFF") + &line("050112C6", "FFFFFFFF");
        assert_eq!(Subnet::beside(&routes).next().unwrap().server(), Ipv4Addr::new(198, 18, 2, 1));
        let half = HEAD.to_owned() + &line("000012C6", "0000FFFF");
        assert_eq!(Subnet::beside(&half).next().unwrap().server(), Ipv4Addr::new(198, 19, 0, 1));
        let all = HEAD.to_owned() + &line("000012C6", "0000FEFF");
        assert_eq!(Subnet::beside(&all).next(), None);
    }

    #[test]
    fn a_network_that_is_claimed_is_nobody_elses() {
        let (one, _claim) = Subnet::claim().unwrap();
        let (other, _other_claim) = Subnet::claim().unwrap();
        assert_ne!(one, other);
    }
}
