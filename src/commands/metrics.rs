//! `rvmm metrics ID`

use serde_json::Value;

use super::{Outcome, fit, print};
use crate::args::MetricsArgs;
use crate::name::known::{self, PATIENCE};

/// Prints what the VM counts.
pub(crate) fn run(args: &MetricsArgs) -> Outcome {
    let vm = known::find(&args.vm.id)?;
    let asked = vm.reach("read the metrics of", PATIENCE)?;
    if args.json {
        return fit::print_json(&asked.json::<Value>("/rvmm/metrics.json")?);
    }
    print(fit::text(&asked.get("/rvmm/metrics")?).as_bytes())
}
