//! `/actions` and `/rvmm/actions`: what is done to a VM and leaves nothing to read.

use serde::Deserialize;
use vmm::controller::Request;

use crate::errors::Fault;
use crate::routes::{self, Call};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    action_type: ActionType,
}

#[derive(Clone, Copy, Deserialize)]
enum ActionType {
    InstanceStart,
    SendCtrlAltDel,
    FlushMetrics,
}

pub(crate) fn put(body: &[u8]) -> Result<Call, Fault> {
    let action: Action = routes::json(body)?;
    Ok(Call::tell(match action.action_type {
        ActionType::InstanceStart => Request::Start,
        ActionType::SendCtrlAltDel => Request::SendCtrlAltDel,
        ActionType::FlushMetrics => Request::FlushMetrics,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnAction {
    action_type: OwnActionType,
}

/// What rvmm adds.
#[derive(Clone, Copy, Deserialize)]
enum OwnActionType {
    PressPowerButton,
}

pub(crate) fn put_own(body: &[u8]) -> Result<Call, Fault> {
    let OwnAction { action_type: OwnActionType::PressPowerButton } = routes::json(body)?;
    Ok(Call::tell(Request::PressPowerButton))
}
