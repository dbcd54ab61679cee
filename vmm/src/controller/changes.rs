//! Changes to devices while their guest is there.

use super::request::{Answer, DriveUpdate, NetUpdate, Refusal};
use crate::device_set::DeviceSet;

/// A new backing file or new limits for a drive.
pub(super) fn drive(update: &DriveUpdate, devices: &DeviceSet) -> Answer {
    let known = || devices.drives.iter().map(|(id, _)| id.clone());
    if !known().any(|id| id == update.drive_id) {
        return Err(no_such("drive", &update.drive_id, known().collect()));
    }
    Err(Refusal::NotSupported("a change of a drive"))
}

/// New limits for a network interface.
pub(super) fn net(update: &NetUpdate) -> Answer {
    Err(no_such("network interface", &update.iface_id, Vec::new()))
}

fn no_such(kind: &'static str, id: &str, known: Vec<String>) -> Refusal {
    Refusal::NoSuchDevice { kind, id: id.to_owned(), known }
}
