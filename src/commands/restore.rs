//! `rvmm restore DIR`: runs the VM that was saved, from where it was, to its end.

use std::rc::Rc;

use vmm::config::VmConfig;

use super::Outcome;
use super::launch::{self, Launch};
use crate::args::RestoreArgs;
use crate::presence::Presence;

/// Runs the VM until it ends, as others see it by `presence`; the exit code says how.
pub(crate) fn run(args: &RestoreArgs, presence: &Rc<Presence>) -> Outcome {
    let mut config = VmConfig::default();
    launch::set_outputs(&mut config, &args.log, &args.control);
    let launch = Launch {
        console: &args.console,
        on_reset: args.on_reset,
        exit_on: args.exit_on.unwrap_or_default(),
        control: &args.control,
        metadata: &args.metadata,
        start_times: args.timing.start_times(),
    };
    launch.run(config, Some(args.load()), presence)
}
