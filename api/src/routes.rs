//! From method, path and body to what the VM is asked for. Nothing here does I/O, and all of it is hostile input.

use serde::de::DeserializeOwned;
use vmm::config::Part;
use vmm::controller::{Request, Response};

use crate::endpoints::{
    actions, balloon, configure, console, drives, instance, logger, machine_config, metrics,
    network_interfaces, version, vm,
};
use crate::errors::Fault;
use crate::reply::Reply;

/// Bytes that a body may have.
pub const MAX_BODY: usize = 51_200;

/// The methods that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Put,
    Patch,
}

impl Method {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "GET" => Some(Self::Get),
            "PUT" => Some(Self::Put),
            "PATCH" => Some(Self::Patch),
            _ => None,
        }
    }
}

/// What a request comes to.
#[derive(Debug)]
pub enum Call {
    /// The VM need not be asked.
    Answered(Reply),
    /// The VM is asked, and its response made a reply.
    Ask(Request, fn(Response) -> Reply),
    /// The client is told what happens, from now on.
    Events,
    /// The client gets what the guest writes to its consoles.
    Console,
    /// The client types at the guest's console.
    Type(Vec<u8>),
}

impl Call {
    /// A write: the VM does it, and has nothing more to say.
    pub(crate) fn tell(request: Request) -> Self {
        Self::Ask(request, |response| match response {
            Response::Done => Reply::done(),
            other => Reply::unexpected(&other),
        })
    }

    /// Understands a request.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn parse(method: &str, path: &str, body: &[u8]) -> Result<Self, Fault> {
        let known = Method::parse(method);
        let unknown = || Fault::NoSuchEndpoint { method: method.to_owned(), path: path.to_owned() };
        let segments: Vec<&str> = path.trim_start_matches('/').split_terminator('/').collect();
        let endpoint = known.and_then(|method| endpoint(method, &segments));
        match endpoint.ok_or_else(unknown)? {
            Endpoint::Read(_) if !body.is_empty() => Err(Fault::UnexpectedBody("GET")),
            Endpoint::Read(call) => Ok(call),
            Endpoint::Write(_) | Endpoint::WriteOne(..) if body.is_empty() => {
                Err(Fault::NoBody(if known == Some(Method::Put) { "PUT" } else { "PATCH" }))
            }
            Endpoint::Write(parse) => parse(body),
            Endpoint::WriteOne(parse, id) => parse(id, body),
            Endpoint::NotSupported => {
                Err(Fault::NotSupported { method: method.to_owned(), path: path.to_owned() })
            }
        }
    }
}

/// What is at a path for a method.
enum Endpoint<'a> {
    /// Something to read; it takes no body.
    Read(Call),
    /// Something to write, from a body.
    Write(fn(&[u8]) -> Result<Call, Fault>),
    /// One of several things to write, by its id and from a body.
    WriteOne(fn(&str, &[u8]) -> Result<Call, Fault>, &'a str),
    /// A part of the API that is not there yet.
    NotSupported,
}

fn endpoint<'a>(method: Method, segments: &[&'a str]) -> Option<Endpoint<'a>> {
    use Endpoint::{NotSupported, Read, Write, WriteOne};
    use Method::{Get, Patch, Put};
    Some(match (method, segments) {
        (Get, []) => Read(instance::get()),
        (Get, ["version"]) => Read(version::get()),
        (Get, ["vm", "config"]) => Read(vm::get_config()),
        (Patch, ["vm"]) => Write(vm::patch),
        (Put, ["actions"]) => Write(actions::put),
        (Get, ["machine-config"]) => Read(machine_config::get()),
        (Put, ["machine-config"]) => Write(|body| configure::part(body, Part::Machine)),
        (Patch, ["machine-config"]) => Write(|body| configure::part(body, Part::MachineUpdate)),
        (Put, ["boot-source"]) => Write(|body| configure::part(body, Part::BootSource)),
        (Put, ["balloon"]) => Write(|body| configure::part(body, Part::Balloon)),
        (Put, ["vsock"]) => Write(|body| configure::part(body, Part::Vsock)),
        (Put, ["entropy"]) => Write(|body| configure::part(body, Part::Entropy)),
        (Put, ["serial"]) => Write(|body| configure::part(body, Part::Serial)),
        (Put, ["metrics"]) => Write(|body| configure::part(body, Part::Metrics)),
        (Put, ["logger"]) => Write(logger::put),
        (Put, ["drives", id]) => WriteOne(configure::drive, id),
        (Put, ["network-interfaces", id]) => WriteOne(configure::network_interface, id),
        (Patch, ["drives", id]) => WriteOne(drives::patch, id),
        (Patch, ["network-interfaces", id]) => WriteOne(network_interfaces::patch, id),
        (Get, ["balloon"]) => Read(balloon::get()),
        (Patch, ["balloon"]) => Write(balloon::patch),
        (Get, ["balloon", "statistics"]) => Read(balloon::get_statistics()),
        (Patch, ["balloon", "statistics"]) => Write(balloon::patch_statistics),
        (Get, ["rvmm", "metrics"]) => Read(metrics::get_text()),
        (Get, ["rvmm", "metrics.json"]) => Read(metrics::get_json()),
        (Get, ["rvmm", "events"]) => Read(Call::Events),
        (Get, ["rvmm", "console"]) => Read(Call::Console),
        (Put, ["rvmm", "console"]) => Write(|body| Ok(console::put(body))),
        (Put, ["cpu-config"] | ["mmds", "config"] | ["snapshot", "create" | "load"])
        | (Put | Patch, ["pmem", _])
        | (_, ["mmds"] | ["hotplug", "memory"]) => NotSupported,
        _ => return None,
    })
}

/// Reads a body.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    Ok(serde_json::from_slice(body)?)
}

/// The id in the path has to be the one in the body.
pub(crate) fn same_id(path: &str, body: &str) -> Result<(), Fault> {
    if path == body {
        return Ok(());
    }
    Err(Fault::IdMismatch { path: path.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests;
