//! Questions to devices and changes to them while their guest is there. What was changed is in the configuration from then
//! on, and a restarted guest finds it so.

use devices::virtio::balloon::{BalloonDevice, BalloonError};

use super::request::{Answer, BalloonStatsUpdate, BalloonUpdate, DriveUpdate, NetUpdate, Refusal, Response};
use crate::config::VmConfig;
use crate::device_set::{self, DeviceSet};

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

/// Has `ask` ask the balloon.
pub(super) fn balloon(
    devices: &DeviceSet,
    ask: impl FnOnce(&mut BalloonDevice) -> Result<Response, BalloonError>,
) -> Answer {
    let balloon = devices.balloon.as_ref().ok_or(Refusal::NotConfigured("balloon"))?;
    ask(&mut device_set::lock(balloon)).map_err(|source| Refusal::Balloon(source.into()))
}

/// A new size for the balloon.
pub(super) fn balloon_target(update: BalloonUpdate, config: &mut VmConfig, devices: &DeviceSet) -> Answer {
    balloon(devices, |balloon| {
        balloon.set_target(update.amount_mib)?;
        config.balloon = Some(balloon.config().clone());
        Ok(Response::Done)
    })
}

/// Another interval for the guest's statistics.
pub(super) fn balloon_polling(
    update: BalloonStatsUpdate,
    config: &mut VmConfig,
    devices: &DeviceSet,
) -> Answer {
    balloon(devices, |balloon| {
        balloon.set_polling_interval(update.stats_polling_interval_s)?;
        config.balloon = Some(balloon.config().clone());
        Ok(Response::Done)
    })
}
