//! Every endpoint that there is. `resources/openapi.yaml` describes the same ones, and a test holds them against each other.

use vmm::config::Part;

use super::{Call, Method};
use crate::endpoints::{
    actions, balloon, configure, console, drives, instance, logger, machine_config, metrics, mmds,
    network_interfaces, snapshot, version, vm,
};
use crate::errors::Fault;

/// What is at a path for a method.
#[derive(Clone, Copy)]
pub(super) enum Endpoint {
    /// Something to read; it takes no body.
    Read(fn() -> Call),
    /// Something to write, from a body.
    Write(fn(&[u8]) -> Result<Call, Fault>),
    /// One of several things to write, by its id and from a body.
    WriteOne(fn(&str, &[u8]) -> Result<Call, Fault>),
    /// A part of the API that is not there yet.
    NotSupported,
}

use Endpoint::{NotSupported, Read, Write, WriteOne};
use Method::{Get, Patch, Put};

/// Method, path and what is there. A segment in braces is an id.
const TABLE: &[(Method, &str, Endpoint)] = &[
    (Get, "/", Read(instance::get)),
    (Get, "/version", Read(version::get)),
    (Get, "/vm/config", Read(vm::get_config)),
    (Patch, "/vm", Write(vm::patch)),
    (Put, "/actions", Write(actions::put)),
    (Put, "/boot-source", Write(|body| configure::part(body, Part::BootSource))),
    (Get, "/machine-config", Read(machine_config::get)),
    (Put, "/machine-config", Write(|body| configure::part(body, Part::Machine))),
    (Patch, "/machine-config", Write(|body| configure::part(body, Part::MachineUpdate))),
    (Put, "/cpu-config", Write(|body| configure::part(body, Part::Cpu))),
    (Put, "/drives/{drive_id}", WriteOne(configure::drive)),
    (Patch, "/drives/{drive_id}", WriteOne(drives::patch)),
    (Put, "/network-interfaces/{iface_id}", WriteOne(configure::network_interface)),
    (Patch, "/network-interfaces/{iface_id}", WriteOne(network_interfaces::patch)),
    (Put, "/pmem/{id}", NotSupported),
    (Patch, "/pmem/{id}", NotSupported),
    (Put, "/vsock", Write(|body| configure::part(body, Part::Vsock))),
    // As clients of Firecracker before 1.0 have it.
    (Put, "/vsock/{id}", WriteOne(|_, body| configure::part(body, Part::Vsock))),
    (Get, "/balloon", Read(balloon::get)),
    (Put, "/balloon", Write(|body| configure::part(body, Part::Balloon))),
    (Patch, "/balloon", Write(balloon::patch)),
    (Get, "/balloon/statistics", Read(balloon::get_statistics)),
    (Patch, "/balloon/statistics", Write(balloon::patch_statistics)),
    (Get, "/hotplug/memory", NotSupported),
    (Put, "/hotplug/memory", NotSupported),
    (Patch, "/hotplug/memory", NotSupported),
    (Put, "/entropy", Write(|body| configure::part(body, Part::Entropy))),
    (Put, "/entropy/{id}", WriteOne(|_, body| configure::part(body, Part::Entropy))),
    (Put, "/serial", Write(|body| configure::part(body, Part::Serial))),
    (Put, "/logger", Write(logger::put)),
    (Put, "/metrics", Write(|body| configure::part(body, Part::Metrics))),
    (Get, "/mmds", Read(mmds::get)),
    (Put, "/mmds", Write(mmds::put)),
    (Patch, "/mmds", Write(mmds::patch)),
    (Put, "/mmds/config", Write(|body| configure::part(body, Part::Mmds))),
    (Put, "/snapshot/create", Write(snapshot::create)),
    (Put, "/snapshot/load", Write(snapshot::load)),
    (Put, "/rvmm/actions", Write(actions::put_own)),
    (Get, "/rvmm/console", Read(|| Call::Console)),
    (Put, "/rvmm/console", Write(|body| Ok(console::put(body)))),
    (Get, "/rvmm/events", Read(|| Call::Events)),
    (Get, "/rvmm/instance", Read(instance::get_own)),
    (Get, "/rvmm/metrics", Read(metrics::get_text)),
    (Get, "/rvmm/metrics.json", Read(metrics::get_json)),
];

/// Method and path of every endpoint. A segment of the path in braces stands for an id.
pub fn endpoints() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|(method, path, _)| (method.name(), *path))
}

/// What is at `path` for `method`, with the id in the path, if it has one.
pub(super) fn find(method: Method, path: &str) -> Option<(Endpoint, &str)> {
    let of_method = TABLE.iter().filter(|(known, ..)| *known == method);
    of_method.clone().find_map(|(_, pattern, endpoint)| Some((*endpoint, id_in(path, pattern)?)))
}

/// The id in `path`, or nothing in particular, when it is a path like `pattern`.
fn id_in<'a>(path: &'a str, pattern: &str) -> Option<&'a str> {
    // A slash at the end makes no difference.
    let mut segments = path.trim_start_matches('/').split_terminator('/');
    let mut id = "";
    for expected in pattern.trim_start_matches('/').split_terminator('/') {
        match segments.next()? {
            segment if expected.starts_with('{') => id = segment,
            segment if segment == expected => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(id)
}
