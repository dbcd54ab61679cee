//! `/mmds`: what the metadata service gives to the guest.

use vmm::controller::{Request, Response};

use crate::errors::Fault;
use crate::reply::Reply;
use crate::routes::{self, Call};

pub(crate) fn get() -> Call {
    Call::Ask(Request::GetMmds, |response| match response {
        Response::Mmds(document) => Reply::json(&document),
        other => Reply::unexpected(&other),
    })
}

pub(crate) fn put(body: &[u8]) -> Result<Call, Fault> {
    Ok(Call::tell(Request::PutMmds(routes::json(body)?)))
}

pub(crate) fn patch(body: &[u8]) -> Result<Call, Fault> {
    Ok(Call::tell(Request::PatchMmds(routes::json(body)?)))
}
