//! Running rvmm where the test may change what is mounted, or which network interfaces there are.

use std::process::Command;

use skip::Capability;

use super::Rvmm;

/// rvmm started by a shell in user and mount namespaces of its own, after `script`; or nothing, and the test is
/// skipped, where there are no such namespaces to be had.
pub(crate) fn rvmm_after(script: &str) -> Option<Rvmm> {
    rvmm_within(&["--mount"], "mount -t tmpfs none /dev", script)
}

/// rvmm started by a shell, as root of a network of its own that has a loopback interface and taps and nothing else, after
/// `script`; or nothing, and the test is skipped, where that is not to be had.
pub(crate) fn rvmm_in_network(script: &str) -> Option<Rvmm> {
    let probe = "ip link set lo up; ip tuntap add probe mode tap; ip link del probe";
    rvmm_within(&["--net", "--mount"], probe, &format!("ip link set lo up; {script}"))
}

fn rvmm_within(namespaces: &[&str], probe: &str, script: &str) -> Option<Rvmm> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).args(namespaces).args(["sh", "-ec"]);
        command
    };
    let works = unshare().arg(probe).output().is_ok_and(|output| output.status.success());
    if !works {
        let reason = format!("no user namespace to be had with unshare {}", namespaces.join(" "));
        skip::skip(Capability::UserNamespaces, reason);
        return None;
    }
    let mut command = unshare();
    command.arg(format!("{script}; exec \"$@\"")).arg("sh").arg(env!("CARGO_BIN_EXE_rvmm"));
    Some(Rvmm::within(command))
}
