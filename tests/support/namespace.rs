//! Running rvmm where the test may change what is mounted.

use std::process::Command;

use super::{Rvmm, kvm};

/// rvmm started by a shell in user and mount namespaces of its own, after `script`; or nothing, after saying so, where
/// there are no such namespaces to be had.
pub(crate) fn rvmm_after(script: &str) -> Option<Rvmm> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-ec"]);
        command
    };
    let works =
        unshare().arg("mount -t tmpfs none /dev").output().is_ok_and(|output| output.status.success());
    if !works {
        kvm::skip("no user and mount namespaces to be had with unshare(1)");
        return None;
    }
    let mut command = unshare();
    command.arg(format!("{script}; exec \"$@\"")).arg("sh").arg(env!("CARGO_BIN_EXE_rvmm"));
    Some(Rvmm::within(command))
}
