//! What all VMMs are told alike: the kernel, its command line, and the guest's end of a network.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::compare::contender::{Attachment, Link, Order, Prepared, Unfit};
use crate::compare::stage::{self, Stage};
use crate::compare::task;

/// What rvmm adds by itself, for the other VMMs: the same but for what is said of devices that they do not have.
const BASE: &str = "console=ttyS0 panic=-1 tsc=reliable random.trust_cpu=on";

/// The guest's end of a network.
const MAC: &str = "02:72:62:00:00:02";

/// A step of setting any VM up.
pub(super) const IMAGE: &str = "make an image of the root file system";

/// Without it there are no VMs.
pub(crate) const KVM: &str = "/dev/kvm";

/// Whether VMs run here at all, which is asked before a kernel is asked for.
pub(super) fn kvm() -> Result<(), Unfit> {
    // It says what mends it.
    vmm::kvm::Host::open().map(drop).map_err(|error| unusable(&error.into()))
}

fn unusable(error: &anyhow::Error) -> Unfit {
    Unfit::missing(KVM, format!("{error:#}"))
}

/// The small kernel.
pub(super) fn kernel(stage: &Stage) -> Result<PathBuf, Unfit> {
    stage.kernel.clone().ok_or_else(|| {
        Unfit::missing("a small guest kernel", "give --kernel FILE; resources/small-kernel builds one")
    })
}

/// The files of a guest that boots `kernel`, for who asks what it takes along.
pub(super) fn ships(
    stage: &Stage,
    program: PathBuf,
    kernel: PathBuf,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    Ok(vec![
        ("program".to_owned(), program),
        ("guest kernel".to_owned(), kernel),
        ("disk image".to_owned(), stage.image()?),
    ])
}

/// A VMM at `program` that boots the small kernel.
pub(super) fn prepared(stage: &Stage, program: &Path) -> Result<Prepared, Unfit> {
    kvm()?;
    Ok(Prepared {
        version: stage::version(program, "--version"),
        ships: ships(stage, program.to_owned(), kernel(stage)?)?,
        steps: vec![IMAGE.to_owned()],
    })
}

/// The words of a kernel command line that have the built-in program, as the first process, do the order's task and end the
/// machine: `poweroff` or `reboot`.
pub(crate) fn command_line(order: &Order, end: &str) -> String {
    let task = order.task.for_built_in().join(",");
    let mut line = format!("quiet init={} BENCH_TASK={task} BENCH_END={end}", task::BUILT_IN);
    if let Some(Link { address, prefix, .. }) = order.link {
        let _ = write!(line, " BENCH_LINK={address}/{prefix}");
    }
    line
}

/// The whole command line for a VMM that adds none, with `words` for its machine.
pub(super) fn whole_command_line(order: &Order, words: &str, end: &str) -> String {
    format!("{BASE} {words} {}", command_line(order, end))
}

/// The tap that the guest's network device is on.
///
/// # Errors
/// The order is for another kind of network.
pub(super) fn tap<'a>(order: &Order<'a>) -> anyhow::Result<Option<&'a str>> {
    match order.link.map(|link| &link.attachment) {
        None => Ok(None),
        Some(Attachment::Tap(name)) => Ok(Some(name)),
        Some(_) => bail!("a VM is attached to a tap"),
    }
}

/// The guest's MAC address, which is local to the tap.
pub(super) fn mac() -> &'static str {
    MAC
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::kvm::KvmError;

    #[test]
    fn a_host_without_kvm_is_told_what_brings_it() {
        let Unfit::Missing(missing) = unusable(&KvmError::Denied.into()) else { panic!("it failed") };
        assert_eq!(missing.what, "/dev/kvm");
        assert!(missing.mend.contains("join its group"), "{}", missing.mend);
    }
}
