//! `/vm`: pausing and resuming; `/vm/config`: what the VM is made of.

use serde::Deserialize;
use vmm::controller::{Request, Response};

use crate::errors::Fault;
use crate::reply::Reply;
use crate::routes::{self, Call};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    state: VmState,
}

#[derive(Clone, Copy, Deserialize)]
enum VmState {
    Paused,
    Resumed,
}

pub(crate) fn patch(body: &[u8]) -> Result<Call, Fault> {
    let vm: Vm = routes::json(body)?;
    Ok(Call::tell(match vm.state {
        VmState::Paused => Request::Pause,
        VmState::Resumed => Request::Resume,
    }))
}

pub(crate) fn get_config() -> Call {
    Call::Ask(Request::GetConfig, |response| match response {
        Response::Config(config) => Reply::json(&*config),
        other => Reply::unexpected(&other),
    })
}
