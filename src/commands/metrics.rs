//! `rvmm metrics ID`

use super::{Outcome, print};
use crate::args::MetricsArgs;
use crate::name::known::{self, PATIENCE};

/// Prints what the VM counts.
pub(crate) fn run(args: &MetricsArgs) -> Outcome {
    let vm = known::find(&args.vm.id)?;
    let asked = vm.reach("read the metrics of", PATIENCE)?;
    if args.json {
        return print(format!("{:#}\n", asked.json("/rvmm/metrics.json")?).as_bytes());
    }
    print(&asked.get("/rvmm/metrics")?)
}
