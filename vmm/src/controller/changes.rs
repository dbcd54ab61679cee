//! Questions to devices and changes to them while their guest is there. What was changed is in the configuration from then
//! on, and a restarted guest finds it so.

use devices::mmds::MmdsStore;
use devices::virtio::balloon::{BalloonDevice, BalloonError};

use super::request::{
    Answer, BalloonStatsUpdate, BalloonUpdate, DriveUpdate, NetUpdate, Refusal, Request, Response,
};
use crate::config::{RateLimiterConfig, VmConfig};
use crate::device_set::{self, DeviceSet};

/// A new backing file or new limits for a drive.
pub(super) fn drive(update: DriveUpdate, config: &mut VmConfig, devices: &DeviceSet) -> Answer {
    let DriveUpdate { drive_id, path_on_host, rate_limiter } = update;
    let device = named("drive", &drive_id, &devices.drives)?;
    let mut device = device_set::lock(device);
    let config = config.drives.iter_mut().find(|drive| drive.drive_id == drive_id);
    if let Some(path) = &path_on_host {
        device
            .swap(path)
            .map_err(|source| Refusal::Device { what: "change the drive's file", source: source.into() })?;
    }
    if let Some(limits) = &rate_limiter {
        device.set_rate_limiter(limits);
    }
    if let Some(config) = config {
        if path_on_host.is_some() {
            config.path_on_host = path_on_host;
        }
        update_limits(&mut config.rate_limiter, rate_limiter.as_ref());
    }
    Ok(Response::Done)
}

/// What the limits of a device are when it was given `update`.
fn update_limits(limits: &mut Option<RateLimiterConfig>, update: Option<&RateLimiterConfig>) {
    let Some(update) = update else { return };
    let updated = limits.take().unwrap_or_default().updated(update);
    *limits = Some(updated).filter(|limits| *limits != RateLimiterConfig::default());
}

/// The device that is called `id`.
fn named<'a, T>(kind: &'static str, id: &str, devices: &'a [(String, T)]) -> Result<&'a T, Refusal> {
    let found = devices.iter().find(|(name, _)| name == id).map(|(_, device)| device);
    found.ok_or_else(|| no_such(kind, id, devices.iter().map(|(name, _)| name.clone()).collect()))
}

/// New limits for a network interface.
pub(super) fn net(update: &NetUpdate, config: &mut VmConfig, devices: &DeviceSet) -> Answer {
    let NetUpdate { iface_id, rx_rate_limiter, tx_rate_limiter } = update;
    let device = named("network interface", iface_id, &devices.nets)?;
    device_set::lock(device).set_rate_limiters(rx_rate_limiter.as_ref(), tx_rate_limiter.as_ref());
    if let Some(config) = config.network_interfaces.iter_mut().find(|net| net.iface_id == *iface_id) {
        update_limits(&mut config.rx_rate_limiter, rx_rate_limiter.as_ref());
        update_limits(&mut config.tx_rate_limiter, tx_rate_limiter.as_ref());
    }
    Ok(Response::Done)
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

/// What the metadata service gives out, which can be read and changed at any time.
pub(super) fn metadata(request: Request, store: &MmdsStore) -> Answer {
    match request {
        Request::GetMmds => return Ok(Response::Mmds(store.get())),
        Request::PutMmds(document) => store.put(document)?,
        Request::PatchMmds(patch) => store.patch(&patch)?,
        _ => {}
    }
    Ok(Response::Done)
}
