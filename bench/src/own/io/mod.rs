//! How fast a Linux guest's devices are: `rvmm bench io`.
//!
//! The same guest kernel and the same image run on rvmm and on Firecracker, over each transport that they have, in
//! turns, round by round, so that what else the host does meets them all. A guest boots once a round and makes all
//! measurements of a group:
//!
//! - `block`: direct I/O on a disk whose image is on tmpfs: 4 KiB random reads with 1 and with 32 under way, 1 MiB
//!   sequential reads and writes with 4 under way;
//! - `net`: TCP out and in (iperf3) and ping over a tap, the other end on the host;
//! - `vsock`: one stream each way, and one byte to and fro.
//!
//! The report has the median of each over the rounds, and rvmm's ratio to the best of the other VMM's: above 1 is
//! better, also where less is better. Firecracker is the program that `FIRECRACKER` names, or that of PATH; QEMU's
//! microvm stands in where there is none.
//!
//! Where this machine cannot run Linux guests, the program starts itself on the emulated host (`resources/emulated-host`).

mod block;
mod counters;
mod metric;
mod net;
mod place;
mod report;
mod session;
mod vmms;
mod vsock;

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;

use super::{check_json, guarded, host, print, progress, write_json};
use crate::args::{Group, IoArgs};
use crate::compare::interrupt;
use place::Resources;
use vmms::{Devices, Machine, Vmm};

/// Measures, prints what was found, and writes what was asked for.
///
/// # Errors
/// What guests need is not there, nothing could be measured, or a file cannot be written.
pub(crate) fn run(args: &IoArgs) -> anyhow::Result<ExitCode> {
    check_json(args.json.as_deref())?;
    // Before there is anything to tidy: this process may become another.
    let resources = place::enter(args)?;
    guarded(|| measure(args, &resources))
}

fn measure(args: &IoArgs, resources: &Resources) -> anyhow::Result<()> {
    let folder = place::scratch()?;
    let resources = resources.copied(folder.path(), &vmms::programs()?)?;
    print(&format!("host: {}\n", host::describe()))?;

    let mut results = report::Results::default();
    for group in metric::groups(args)? {
        let side = host_side(group, folder.path())?;
        let vmms: Vec<Vmm> = vmms::all(group)?.into_iter().filter(|vmm| takes(args, vmm)).collect();
        ensure!(!vmms.is_empty(), "no VMM has {} in its name", args.vmm.join(" or "));
        let bar = progress::bar(metric::name(group), args.rounds as usize * vmms.len());
        for round in 0..args.rounds {
            for vmm in &vmms {
                let machine =
                    Machine { resources: &resources, folder: folder.path(), devices: side.devices() };
                let samples = session::run(vmm, &machine, &side.script(args), args);
                interrupt::check()?;
                match samples {
                    Ok(samples) => {
                        for sample in samples {
                            progress::say(&bar, &sample.line(round, group, &vmm.name));
                            results.add(group, vmm, sample);
                        }
                    }
                    Err(error) => bar.suspend(|| eprintln!("round {round}, {}: {error:#}", vmm.name)),
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
    }
    ensure!(!results.is_empty(), "no guest could be measured");
    print(&results.tables())?;
    write_json(args.json.as_deref(), &results.json())
}

/// Whether `--vmm` wants it.
fn takes(args: &IoArgs, vmm: &Vmm) -> bool {
    args.vmm.is_empty() || args.vmm.iter().any(|text| vmm.name.contains(text.as_str()))
}

fn host_side(group: Group, folder: &Path) -> anyhow::Result<Box<dyn HostSide>> {
    Ok(match group {
        Group::Block => Box::new(block::Disk::new(folder)?),
        Group::Net => Box::new(net::Network::new()?),
        Group::Vsock => Box::new(vsock::Peers::new(folder)?),
    })
}

/// What a group needs on the host, there for as long as the group runs.
trait HostSide {
    /// The devices of the guest beside its root disk.
    fn devices(&self) -> Devices;
    /// What the guest's shell is to do, without double quotes; `session` says which lines it prints.
    fn script(&self, args: &IoArgs) -> String;
}
