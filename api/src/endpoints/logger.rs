//! `/logger`: what the VMM logs, and where to.

use vmm::controller::Request;

use crate::errors::Fault;
use crate::routes::{self, Call};

pub(crate) fn put(body: &[u8]) -> Result<Call, Fault> {
    Ok(Call::tell(Request::SetLogger(routes::json(body)?)))
}
