//! Network devices, driven by a bare guest, in a network of its own.

use crate::support::Rvmm;
use crate::support::kvm::require_kvm;
use crate::support::{bare, namespace, process};

/// A tap whose host is 10.7.0.1.
const TAP: &str = "ip tuntap add tap0 mode tap; ip address add 10.7.0.1/24 dev tap0; ip link set tap0 up";

fn in_network(script: &str) -> Option<Rvmm> {
    Some(
        namespace::rvmm_in_network(script)?
            .arg("--kernel")
            .arg(bare::path("virtio-net"))
            .args(["--transport", "mmio"]),
    )
}

#[test]
fn a_guest_and_the_host_talk_over_a_tap() {
    require_kvm!();
    let Some(rvmm) = in_network(TAP) else { return };
    let ended = rvmm.args(["--net", "tap=tap0,mac=02:00:00:00:00:07"]).run();
    ended.assert_clean();
    let mac = "mac 00000002 00000700 status 00000001\n";
    assert_eq!(ended.stdout, format!("{mac}reply from 0a070001 buffers 00000001\n"), "{ended:#?}");
}

#[test]
fn a_tap_that_is_not_there_is_made_and_goes_with_the_vm() {
    require_kvm!();
    let probe = "sh -c '\"$@\"; ip link show made0 2>/dev/null || echo gone' sh";
    let Some(rvmm) = namespace::rvmm_in_network(&format!("{TAP}; set -- {probe} \"$@\"")) else { return };
    let ended = rvmm
        .arg("--kernel")
        .arg(bare::path("virtio-net"))
        .args(["--transport", "mmio"])
        .args(["--net", "tap=made0,mtu=9000"])
        .run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    // The host answers for an address of its other tap.
    assert!(ended.stdout.ends_with("reply from 0a070001 buffers 00000001\ngone\n"), "{ended:#?}");
}

#[test]
fn a_tap_that_is_made_has_the_same_address_each_time() {
    require_kvm!();
    let address = |name: &str| {
        let look = format!("ip -o link show up dev {name} 2>/dev/null | grep -oE ether.[0-9a-f:]+");
        let probe = format!("sh -c '\"$@\" & until {look}; do sleep 0.1; done; kill $!; wait' sh");
        let rvmm = namespace::rvmm_in_network(&format!("set -- {probe} \"$@\""))?;
        let guest = rvmm.arg("--kernel").arg(bare::path("hlt-forever"));
        let ended = guest.args(["--net", &format!("tap={name}")]).run();
        Some(ended.stdout.lines().find(|line| line.starts_with("ether ")).unwrap().to_owned())
    };
    let Some(first) = address("made0") else { return };
    assert_eq!(address("made0"), Some(first.clone()));
    assert_ne!(address("made1"), Some(first));
}

#[test]
fn passt_starts_with_the_driver_and_not_before() {
    require_kvm!();
    // A guest that has no driver for the device ends before anything is started.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("passt");
    let trace = folder.path().join("started");
    let script = folder.path().join("script");
    std::fs::write(&script, format!("#!/bin/sh\necho \"$@\" >{}\n", trace.display())).unwrap();
    process::install(&script, &program);
    let run = |guest: &str| {
        let mut rvmm = Rvmm::guest(guest).args(["--net", "user,publish=127.0.0.1:61234:80,mtu=1500"]);
        rvmm.command.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
        rvmm.run()
    };
    run("hello").assert_clean();
    assert!(!trace.exists(), "started for nobody");
    // It ends at once: the guest's link goes down, and the guest goes on.
    let ended = run("virtio-net");
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert!(ended.stdout.ends_with("link down\n"), "{ended:#?}");
    assert!(ended.stderr.contains("network interface net0: the link is down, the VM goes on"), "{ended:#?}");
    let arguments = std::fs::read_to_string(&trace).unwrap();
    for expected in
        ["--foreground", "--mtu 1500", "--no-map-gw", "--tcp-ports 127.0.0.1/61234:80", "--udp-ports none"]
    {
        assert!(arguments.contains(expected), "{arguments}");
    }
}
