//! From method, path and body to what the VM is asked for. Nothing here does I/O, and all of it is hostile input.

mod table;

use serde::de::DeserializeOwned;
use vmm::controller::{Request, Response};
use vmm::json;

use crate::errors::Fault;
use crate::reply::Reply;
use table::Endpoint;
pub use table::endpoints;

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

    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
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
        let found = Method::parse(method).and_then(|known| Some((known, table::find(known, path)?)));
        let unknown = || Fault::NoSuchEndpoint { method: method.to_owned(), path: path.to_owned() };
        let (known, (endpoint, id)) = found.ok_or_else(unknown)?;
        match endpoint {
            Endpoint::Read(_) if !body.is_empty() => Err(Fault::UnexpectedBody(known.name())),
            Endpoint::Read(call) => Ok(call()),
            Endpoint::Write(_) | Endpoint::WriteOne(_) if body.is_empty() => Err(Fault::NoBody(known.name())),
            Endpoint::Write(parse) => parse(body),
            Endpoint::WriteOne(parse) => parse(id, body),
            Endpoint::NotSupported => {
                Err(Fault::NotSupported { method: method.to_owned(), path: path.to_owned() })
            }
        }
    }
}

/// Reads a body.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    json::read(body).map_err(|error| Fault::Json(error.to_string()))
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
