//! `rvmm rm ID…`: removes what VMs left behind that were killed or failed.

use std::process::ExitCode;

use super::Outcome;
use crate::args::RmArgs;
use crate::name::known::{self, Life};

/// Removes the folders of VMs that have ended; all that can be, before it tells what could not.
pub(crate) fn run(args: &RmArgs) -> Outcome {
    let mut refused = Vec::new();
    if args.all_dead {
        let all = known::all()?;
        let dead = all.iter().filter(|vm| !matches!(vm.life, Life::Alive(_)));
        refused.extend(dead.filter_map(|vm| vm.clear().err()));
    }
    for id in &args.ids {
        refused.extend(known::find_whole(id).and_then(|vm| vm.clear()).err());
    }
    if refused.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(refused.join("; ").into()) }
}
