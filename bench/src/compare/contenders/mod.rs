//! All contenders, in the order of their turns.

mod cloud_hypervisor;
pub(crate) mod firecracker;
mod guest;
mod oci;
mod podman;
mod process;
mod qemu;
pub(crate) mod rvmm;
mod venv;

use std::path::Path;
use std::process::Command;

use crate::args::CompareArgs;
use crate::usage::Usage;

use super::contender::{Contender, Entry};
use super::stage::Stage;
use super::{interrupt, tree};

pub(crate) use guest::KVM;

fn all() -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = vec![Box::new(process::Process), Box::new(venv::Venv)];
    all.extend(oci::all().map(|runtime| Box::new(runtime) as Box<dyn Contender>));
    all.push(Box::new(podman::Podman::new()));
    all.push(Box::new(qemu::Qemu::default()));
    all.push(Box::new(firecracker::Firecracker::default()));
    all.push(Box::new(cloud_hypervisor::CloudHypervisor::default()));
    all.extend(rvmm::all().map(|way| Box::new(way) as Box<dyn Contender>));
    all
}

/// Commands that remove what runtimes keep of their containers in `folder`, a comparison's.
pub(crate) fn remains(folder: &Path) -> Vec<Command> {
    oci::remains(folder).into_iter().chain(podman::remains(folder)).collect()
}

/// What comes of a container that does not start in a control group: it is tried `without`, if that is possible, and said.
fn refused(error: anyhow::Error, without: bool, steps: &mut Vec<String>) -> anyhow::Result<()> {
    interrupt::check()?;
    if !without {
        return Err(error);
    }
    steps.push(format!("do without control groups, since it does not start with them here: {error:#}"));
    Ok(())
}

/// Prints the names.
pub(crate) fn list() {
    for contender in all() {
        println!("{:<20}{}", contender.name(), contender.title());
    }
}

/// Those that `--only` names, set up.
///
/// # Errors
/// There is none of a name that was given.
pub(crate) fn prepared(args: &CompareArgs, stage: &Stage) -> anyhow::Result<Vec<Entry>> {
    let all = all();
    for name in &args.only {
        if all.iter().all(|contender| contender.name() != name) {
            let mend = "rvmm bench compare --only help lists them";
            return Err(Usage(format!("--only {name}: there is no such contender; {mend}")).into());
        }
    }
    let wanted = all
        .into_iter()
        .filter(|contender| args.only.is_empty() || args.only.iter().any(|name| name == contender.name()));
    // A signal is for who measures: those that were set up until then are listed.
    let mut entries = Vec::new();
    for contender in wanted {
        if interrupt::came() {
            break;
        }
        entries.push(Entry::new(contender, stage));
        // podman without root rights leaves a process that keeps its namespaces.
        tree::clear();
    }
    Ok(entries)
}
