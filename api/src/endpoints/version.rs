//! `/version`: the version of Firecracker whose API this is.

use serde::Serialize;

use crate::reply::Reply;
use crate::routes::Call;

/// Clients look here for what they may ask; rvmm's own version is in `/`.
const FIRECRACKER_VERSION: &str = "1.17.0";

#[derive(Serialize)]
struct Version {
    firecracker_version: &'static str,
}

pub(crate) fn get() -> Call {
    Call::Answered(Reply::json(&Version { firecracker_version: FIRECRACKER_VERSION }))
}
