//! `/machine-config`: vCPUs and memory.

use vmm::controller::{Request, Response};

use crate::reply::Reply;
use crate::routes::Call;

pub(crate) fn get() -> Call {
    Call::Ask(Request::GetConfig, |response| match response {
        Response::Config(config) => Reply::json(&config.machine_config),
        other => Reply::unexpected(&other),
    })
}
