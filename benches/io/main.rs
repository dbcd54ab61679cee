//! How fast a Linux guest's devices are: `cargo bench --bench io [-- OPTION…]`, `-- --help` lists the options.
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

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that can't go on says so and stops")]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "few runs, short times, no input from outside"
)]

mod block;
mod counters;
#[path = "../emulated.rs"]
mod emulated;
#[path = "../startup/host.rs"]
mod host;
mod metric;
mod net;
mod options;
mod place;
#[path = "../programs.rs"]
mod programs;
mod report;
mod session;
mod vmms;
mod vsock;

use metric::Group;
use options::Options;
use vmms::{Machine, Vmm};

fn main() {
    let options = Options::from_args();
    let resources = place::enter(&options);
    let folder = place::scratch();
    let resources = resources.copied(folder.path(), &vmms::programs());
    println!("host: {}", host::describe());

    let mut results = report::Results::default();
    for group in &options.groups {
        let side = group.host_side(folder.path());
        let vmms: Vec<Vmm> = vmms::all(*group).into_iter().filter(|vmm| options.takes(vmm)).collect();
        for round in 0..options.rounds {
            for vmm in &vmms {
                let machine =
                    Machine { resources: &resources, folder: folder.path(), devices: side.devices() };
                let script = side.script(&options);
                match session::run(vmm, &machine, &script, &options) {
                    Ok(samples) => {
                        for sample in samples {
                            eprintln!("{}", sample.line(round, *group, &vmm.name));
                            results.add(*group, vmm, sample);
                        }
                    }
                    Err(reason) => eprintln!("round {round}, {}: {reason}", vmm.name),
                }
            }
        }
    }
    results.print();
    if let Some(path) = &options.json {
        std::fs::write(path, results.json()).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

impl Group {
    fn host_side(self, folder: &std::path::Path) -> Box<dyn HostSide> {
        match self {
            Self::Block => Box::new(block::Disk::new(folder)),
            Self::Net => Box::new(net::Network::new()),
            Self::Vsock => Box::new(vsock::Peers::new(folder)),
        }
    }
}

/// What a group needs on the host, there for as long as the group runs.
trait HostSide {
    /// The devices of the guest beside its root disk.
    fn devices(&self) -> vmms::Devices;
    /// What the guest's shell is to do, without double quotes; `session` says which lines it prints.
    fn script(&self, options: &Options) -> String;
}
