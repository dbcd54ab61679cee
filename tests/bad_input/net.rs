//! Network interfaces that cannot be.

use std::net::TcpListener;

use super::{hello, refused};
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare, namespace};

#[test]
fn an_interface_that_is_written_wrong_is_refused() {
    let net = |value: &str| Rvmm::new().args(["--kernel", "k", "--net", value]);
    for (value, words) in [
        ("bridge", &["bridge", "tap=NAME or user"][..]),
        ("tap", &["tap wants a value"]),
        ("tap=t,user", &["exclude"]),
        ("mtu=1500", &["tap=NAME or user is missing"]),
        ("tap=t,mac=02:00", &["02:00", "malformed", "02:00:00:00:00:01"]),
        ("tap=t,mac=01:00:00:00:00:00", &["multicast"]),
        ("tap=t,mtu=big", &["mtu=big", "whole number"]),
        ("tap=t,publish=80:80", &["publish needs user"]),
        ("user,publish=80", &["'80'", "HOST:GUEST"]),
        ("user,vhost=on", &["vhost=on needs a tap"]),
        ("tap=t,vhost=yes", &["on or off"]),
    ] {
        refused(net(value), 2, words);
    }
    for (value, words) in [
        ("tap=t,mtu=67", &["67", "68 to 65535"][..]),
        ("tap=t,mtu=65536", &["65536", "68 to 65535"]),
        ("tap=sixteen-letters.", &["sixteen-letters.", "15"]),
        ("user,publish=80:80,publish=80:81", &["TCP port 80", "twice"]),
        ("user,id=a/b", &["a/b"]),
    ] {
        refused(net(value), 1, words);
    }
    refused(net("tap=t").args(["--net", "tap=t"]), 1, &["net0", "net1", "tap t"]);
    refused(net("user,id=a").args(["--net", "user,id=a"]), 1, &["\"a\"", "twice"]);
    let twice = net("user,publish=8080:80").args(["--net", "user,publish=8080:81"]);
    refused(twice, 1, &["net0", "net1", "TCP port 8080"]);
}

#[test]
fn a_tap_that_cannot_be_had_is_refused_with_the_command_that_mends_it() {
    require_kvm!();
    let in_network = |script: &str| {
        let rvmm = namespace::rvmm_in_network(script)?;
        Some(rvmm.arg("--kernel").arg(bare::path("hlt-forever")))
    };
    let unprivileged = "set -- setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \"$@\"";
    let Some(rvmm) = in_network(unprivileged) else { return };
    refused(rvmm.args(["--net", "tap=t0"]), 1, &["no tap t0", "sudo ip tuntap add t0 mode tap"]);
    let rvmm = in_network("true").unwrap();
    refused(rvmm.args(["--net", "tap=lo"]), 1, &["lo", "no tap"]);
    // The second VM on one tap.
    let twice = "ip tuntap add t0 mode tap; \"$@\" & ip link set t0 up; until ip link show t0 | grep -q LOWER_UP; do sleep 0.1; done; \
                 \"$@\" && exit 9; code=$?; kill $!; wait $!; exit $code";
    let rvmm = in_network(&format!("set -- sh -c '{}' sh \"$@\"", twice.replace('\'', "'\\''"))).unwrap();
    let ended = rvmm.args(["--net", "tap=t0"]).run();
    assert_eq!(ended.code(), 1, "{ended:#?}");
    assert!(ended.stderr.contains("tap t0 is in use"), "{ended:#?}");
}

#[test]
fn vhost_net_that_the_host_has_not_is_refused_with_the_module_that_brings_it() {
    require_kvm!();
    // A /dev without vhost-net, whether or not the host has it.
    let script = "ip tuntap add t0 mode tap; mount --rbind /dev /mnt; mount -t tmpfs none /dev; mkdir /dev/net; \
                  for node in kvm net/tun null urandom; do touch /dev/$node; mount --bind /mnt/$node /dev/$node; done";
    let Some(rvmm) = namespace::rvmm_in_network(script) else { return };
    let rvmm = rvmm.arg("--kernel").arg(bare::path("hello")).args(["--net", "tap=t0,vhost=on"]);
    refused(rvmm, 1, &["/dev/vhost-net", "modprobe vhost_net"]);
}

#[test]
fn a_port_that_is_taken_and_a_passt_that_is_missing_are_refused() {
    require_kvm!();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let net = format!("user,publish=127.0.0.1:{port}:80");
    refused(hello().args(["--net", &net]), 1, &[&format!("TCP port {port} is taken")]);
    let mut rvmm = hello().arg("--net");
    rvmm.command.env("PATH", "/no/such/folder");
    refused(rvmm, 1, &["passt", "apt install passt"]);
}
