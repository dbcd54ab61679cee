//! `rvmm config ID`

use serde_json::Value;

use super::{Outcome, fit};
use crate::args::VmArgs;
use crate::name::known::{self, PATIENCE};

/// Prints what the VM is made of now, for `--config-file`.
pub(crate) fn run(args: &VmArgs) -> Outcome {
    let vm = known::find(&args.id)?;
    let config = vm.reach("read the configuration of", PATIENCE)?.json::<Value>("/vm/config")?;
    fit::print_json(&config)
}
