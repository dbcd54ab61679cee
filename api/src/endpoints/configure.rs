//! What makes up a VM before it starts: each resource is a part of its configuration, whole.

use serde::de::DeserializeOwned;
use vmm::config::{BlockConfig, NetConfig, Part};
use vmm::controller::Request;

use crate::errors::Fault;
use crate::routes::{self, Call};

/// Reads a body that is a part of the configuration.
pub(crate) fn part<T: DeserializeOwned>(body: &[u8], part: impl FnOnce(T) -> Part) -> Result<Call, Fault> {
    Ok(configure(part(routes::json(body)?)))
}

fn configure(part: Part) -> Call {
    Call::tell(Request::Configure(Box::new(part)))
}

pub(crate) fn drive(id: &str, body: &[u8]) -> Result<Call, Fault> {
    let drive: BlockConfig = routes::json(body)?;
    routes::same_id(id, &drive.drive_id)?;
    Ok(configure(Part::Drive(drive)))
}

pub(crate) fn network_interface(id: &str, body: &[u8]) -> Result<Call, Fault> {
    let net: NetConfig = routes::json(body)?;
    routes::same_id(id, &net.iface_id)?;
    Ok(configure(Part::Net(net)))
}
