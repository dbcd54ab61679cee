//! `/balloon`: how much memory the guest gives back; `/balloon/statistics`: what it says of its memory.

use vmm::controller::{BalloonStatsUpdate, BalloonUpdate, Request, Response};

use crate::errors::Fault;
use crate::reply::Reply;
use crate::routes::{self, Call};

pub(crate) fn get() -> Call {
    Call::Ask(Request::GetBalloon, |response| match response {
        Response::Balloon(config) => Reply::json(&*config),
        other => Reply::unexpected(&other),
    })
}

pub(crate) fn patch(body: &[u8]) -> Result<Call, Fault> {
    let update: BalloonUpdate = routes::json(body)?;
    Ok(Call::tell(Request::UpdateBalloon(update)))
}

pub(crate) fn get_statistics() -> Call {
    Call::Ask(Request::GetBalloonStatistics, |response| match response {
        Response::BalloonStatistics(statistics) => Reply::json(&*statistics),
        other => Reply::unexpected(&other),
    })
}

pub(crate) fn patch_statistics(body: &[u8]) -> Result<Call, Fault> {
    let update: BalloonStatsUpdate = routes::json(body)?;
    Ok(Call::tell(Request::UpdateBalloonStatistics(update)))
}
