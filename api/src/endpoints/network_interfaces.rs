//! `/network-interfaces/{id}`: network interfaces.

use vmm::controller::{NetUpdate, Request};

use crate::errors::Fault;
use crate::routes::{self, Call};

pub(crate) fn patch(id: &str, body: &[u8]) -> Result<Call, Fault> {
    let update: NetUpdate = routes::json(body)?;
    routes::same_id(id, &update.iface_id)?;
    Ok(Call::tell(Request::UpdateNet(update)))
}
