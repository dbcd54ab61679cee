//! `/drives/{id}`: disks.

use vmm::controller::{DriveUpdate, Request};

use crate::errors::Fault;
use crate::routes::{self, Call};

pub(crate) fn patch(id: &str, body: &[u8]) -> Result<Call, Fault> {
    let update: DriveUpdate = routes::json(body)?;
    routes::same_id(id, &update.drive_id)?;
    Ok(Call::tell(Request::UpdateDrive(update)))
}
