//! `/` and `/rvmm/instance`: which VM this is, and how it is.

use serde::Serialize;
use vmm::controller::{OnReset, Request, Response, State};

use crate::reply::Reply;
use crate::routes::Call;

#[derive(Serialize)]
struct Instance {
    id: String,
    state: State,
    vmm_version: &'static str,
    app_name: &'static str,
}

pub(crate) fn get() -> Call {
    Call::Ask(Request::GetInstance, |response| match response {
        Response::Instance(instance) => Reply::json(&Instance {
            id: instance.id,
            state: instance.state,
            vmm_version: env!("CARGO_PKG_VERSION"),
            app_name: "rvmm",
        }),
        other => Reply::unexpected(&other),
    })
}

/// What rvmm adds to that.
#[derive(Serialize)]
struct OwnInstance {
    id: String,
    state: State,
    on_reset: OnReset,
}

pub(crate) fn get_own() -> Call {
    Call::Ask(Request::GetInstance, |response| match response {
        Response::Instance(vmm::controller::Instance { id, state, on_reset }) => {
            Reply::json(&OwnInstance { id, state, on_reset })
        }
        other => Reply::unexpected(&other),
    })
}
