//! `rvmm inspect ID`

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Outcome, fit};
use crate::args::VmArgs;
use crate::name::known::{self, Known, Life, PATIENCE};

/// Metrics that say how much a VM has done.
const SUMMARY: [&str; 4] = ["vcpu", "vmm", "uart", "api_server"];

/// What is known of a VM.
#[derive(Debug, Serialize)]
struct Inspection {
    id: String,
    state: Value,
    paths: Paths,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    alive: Option<Alive>,
}

#[derive(Debug, Serialize)]
struct Paths {
    folder: PathBuf,
    api_socket: Option<PathBuf>,
    log: Option<PathBuf>,
}

/// What is known of one that runs.
#[derive(Debug, Serialize)]
struct Alive {
    pid: Option<u32>,
    uptime_s: u64,
    instance: Value,
    config: Value,
    metrics: Map<String, Value>,
}

/// Prints all that is known of a VM, as JSON.
pub(crate) fn run(args: &VmArgs) -> Outcome {
    let vm = known::find(&args.id)?;
    fit::print_json(&inspect(&vm)?)
}

fn inspect(vm: &Known) -> Result<Inspection, String> {
    let exists = |path: PathBuf| path.symlink_metadata().is_ok().then_some(path);
    let api_socket = exists(vm.socket()).map(|socket| socket.read_link().unwrap_or(socket));
    let paths = Paths { folder: vm.folder.clone(), api_socket, log: exists(vm.log()) };
    let (state, error, alive) = match &vm.life {
        Life::Dead => ("Dead".into(), None, None),
        Life::Failed(error) => ("Failed".into(), Some(error.clone()), None),
        Life::Alive(pid) => {
            let asked = vm.reach("inspect", PATIENCE)?;
            let instance: Value = asked.json("/")?;
            let mut metrics = match asked.json("/rvmm/metrics.json")? {
                Value::Object(metrics) => metrics,
                _ => Map::new(),
            };
            metrics.retain(|kind, _| SUMMARY.contains(&kind.as_str()));
            let state = instance.get("state").cloned().unwrap_or_default();
            let (uptime_s, config) = (vm.uptime(), asked.json("/vm/config")?);
            (state, None, Some(Alive { pid: *pid, uptime_s, instance, config, metrics }))
        }
    };
    Ok(Inspection { id: vm.id.clone(), state, paths, error, alive })
}
