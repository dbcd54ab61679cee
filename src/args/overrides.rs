//! `--disk`, `--net` and `--vsock` of a restore: other ends on the host for what is in a snapshot.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use vmm::config::{DriveOverride, MacAddress, NetworkOverride, VsockOverride};

use super::{Engine, fields};
use crate::name;

const DISK_FIELDS: &str = "id=ID, path=FILE and engine=sync|io_uring";
const NET_FIELDS: &str =
    "id=ID, tap=NAME, mac=ADDRESS or mac=new, publish=[ADDR:]HOST:GUEST[/udp] or publish=none";
const VSOCK_FIELDS: &str = "cid=N and uds=PATH";

/// `id=ID[,path=FILE][,engine=sync|io_uring]`
pub(super) fn disk_override(value: &OsStr) -> Result<DriveOverride, String> {
    let mut id = None;
    let mut disk = DriveOverride::default();
    each(value, DISK_FIELDS, |key, value| {
        Ok(Some(match key {
            "id" => id.replace(text(key, value)?).is_some(),
            "path" => disk.path_on_host.replace(PathBuf::from(value)).is_some(),
            "engine" => disk.io_engine.replace(Engine::parse(value)?.into()).is_some(),
            _ => return Ok(None),
        }))
    })?;
    disk.drive_id = id.ok_or_else(|| format!("id=ID is missing; fields are {DISK_FIELDS}"))?;
    if disk.path_on_host.is_none() && disk.io_engine.is_none() {
        return Err(format!("nothing is said of {}; fields are {DISK_FIELDS}", disk.drive_id));
    }
    Ok(disk)
}

/// `copy=FOLDER`
pub(super) fn copy_folder(value: &OsStr) -> Result<PathBuf, String> {
    let folder = value.as_bytes().strip_prefix(b"copy=").filter(|folder| !folder.is_empty());
    folder
        .map(|folder| PathBuf::from(OsStr::from_bytes(folder)))
        .ok_or_else(|| "copy=FOLDER is wanted".to_owned())
}

/// `id=ID[,tap=NAME][,mac=ADDRESS|mac=new][,publish=…]…`
pub(super) fn net_override(value: &OsStr) -> Result<NetworkOverride, String> {
    let mut id = None;
    let mut net = NetworkOverride::default();
    let mut none = false;
    each(value, NET_FIELDS, |key, value| {
        let value = text(key, value)?;
        Ok(Some(match key {
            "id" => id.replace(value).is_some(),
            "tap" => net.host_dev_name.replace(value).is_some(),
            "mac" => net.guest_mac.replace(mac(&value)?).is_some(),
            "publish" if value == "none" => std::mem::replace(&mut none, true),
            "publish" => {
                let port = value.parse().map_err(|error| format!("{error}"))?;
                net.publish.get_or_insert_default().push(port);
                false
            }
            _ => return Ok(None),
        }))
    })?;
    net.iface_id = id.ok_or_else(|| format!("id=ID is missing; fields are {NET_FIELDS}"))?;
    if none && net.publish.replace(Vec::new()).is_some() {
        return Err("publish=none and publish=… with a port exclude each other".to_owned());
    }
    if net.host_dev_name.is_some() && net.publish.is_some() {
        return Err("tap and publish exclude each other: only passt publishes ports".to_owned());
    }
    if net.host_dev_name.is_none() && net.guest_mac.is_none() && net.publish.is_none() {
        return Err(format!("nothing is said of {}; fields are {NET_FIELDS}", net.iface_id));
    }
    Ok(net)
}

/// `[cid=N][,uds=PATH]`
pub(super) fn vsock_override(value: &OsStr) -> Result<VsockOverride, String> {
    let mut vsock = VsockOverride::default();
    each(value, VSOCK_FIELDS, |key, value| {
        Ok(Some(match key {
            "cid" => {
                let number = value.to_str().and_then(|number| number.parse().ok());
                let number = number.ok_or("cid wants a whole number, 3 or more")?;
                vsock.guest_cid.replace(number).is_some()
            }
            "uds" => vsock.uds_path.replace(PathBuf::from(value)).is_some(),
            _ => return Ok(None),
        }))
    })?;
    Ok(vsock)
}

/// Has `take` called with key and value of each field of `list`; it says whether the key was there before, or that there is
/// no such key.
fn each(
    list: &OsStr,
    known: &str,
    mut take: impl FnMut(&str, &OsStr) -> Result<Option<bool>, String>,
) -> Result<(), String> {
    for field in fields::split(list) {
        let (key, value) = fields::key_value(&field);
        let key = key.to_string_lossy();
        let value = value.filter(|value| !value.is_empty());
        match take(&key, value.unwrap_or(OsStr::new("x"))) {
            Ok(None) => return Err(format!("unknown field '{key}'; known are {known}")),
            _ if value.is_none() => return Err(format!("{key} wants a value: {key}=…")),
            Ok(Some(true)) => return Err(format!("{key} is given twice")),
            taken => taken.map(drop)?,
        }
    }
    Ok(())
}

/// A MAC address: the one that is written, or a new one.
fn mac(value: &str) -> Result<MacAddress, String> {
    if value == "new" { Ok(new_mac()) } else { value.parse().map_err(|error| format!("{error}")) }
}

/// An address that no other interface has.
pub(crate) fn new_mac() -> MacAddress {
    MacAddress::derived_from(&[name::invent().as_bytes()])
}

fn text(key: &str, value: &OsStr) -> Result<String, String> {
    value.to_str().map(str::to_owned).ok_or_else(|| format!("{key} is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::config::IoEngine;

    #[test]
    fn a_disk_is_named_and_a_doubled_comma_is_one() {
        let disk = disk_override(OsStr::new("path=a,,b,id=data")).unwrap();
        assert_eq!((disk.drive_id.as_str(), disk.path_on_host), ("data", Some("a,b".into())));
        let disk = disk_override(OsStr::new("id=data,engine=sync")).unwrap();
        assert_eq!((disk.path_on_host, disk.io_engine), (None, Some(IoEngine::Sync)));
    }

    #[test]
    fn an_interface_has_another_tap_address_or_ports() {
        let net = |value: &str| net_override(OsStr::new(value)).unwrap();
        assert_eq!(net("id=eth0,tap=tap7").host_dev_name.as_deref(), Some("tap7"));
        let ports = net("id=net0,publish=8080:80,publish=53:53/udp").publish.unwrap();
        assert_eq!(ports.len(), 2);
        assert_eq!(net("id=net0,publish=none").publish, Some(Vec::new()));
        let given = net("mac=02:00:00:00:00:07,id=a").guest_mac.unwrap();
        assert_eq!(given.to_string(), "02:00:00:00:00:07");
        let (one, other) = (net("id=a,mac=new").guest_mac, net("id=a,mac=new").guest_mac);
        assert!(one.is_some() && one != other);
    }

    #[test]
    fn a_socket_device_has_another_id_or_socket_or_both() {
        let vsock = vsock_override(OsStr::new("cid=7,uds=v")).unwrap();
        assert_eq!(vsock, VsockOverride { guest_cid: Some(7), uds_path: Some("v".into()) });
        assert_eq!(vsock_override(OsStr::new("uds=v")).unwrap().guest_cid, None);
    }

    #[test]
    fn what_is_missing_twice_or_unknown_is_named() {
        for (value, part) in [
            ("", "unknown field ''; known are id=ID, path=FILE and engine=sync|io_uring"),
            ("id=a", "nothing is said of a"),
            ("id=a,engine=fast", "unknown engine 'fast'"),
            ("path=a", "id=ID is missing"),
            ("id=a,path", "path wants a value"),
            ("id=,path=a", "id wants a value"),
            ("id=a,id=b,path=c", "id is given twice"),
            ("id=a,path=b,readonly", "unknown field 'readonly'"),
        ] {
            let message = disk_override(OsStr::new(value)).unwrap_err();
            assert!(message.contains(part), "{value}: {message}");
        }
        for (value, part) in [
            ("tap=t", "id=ID is missing"),
            ("id=a", "nothing is said of a"),
            ("id=a,tap", "tap wants a value"),
            ("id=a,mac", "mac wants a value"),
            ("id=a,mac=x", "MAC address 'x' is malformed"),
            ("id=a,publish=x", "cannot publish 'x'"),
            ("id=a,publish=none,publish=1:1", "exclude each other"),
            ("id=a,publish=none,publish=none", "publish is given twice"),
            ("id=a,tap=t,publish=1:1", "exclude each other"),
            ("id=a,user", "unknown field 'user'"),
        ] {
            let message = net_override(OsStr::new(value)).unwrap_err();
            assert!(message.contains(part), "{value}: {message}");
        }
        for (value, part) in [
            ("", "unknown field ''"),
            ("cid", "cid wants a"),
            ("cid=x", "cid wants a whole number"),
            ("uds", "uds wants a value"),
            ("cid=3,cid=4", "cid is given twice"),
            ("port=1", "unknown field 'port'; known are cid=N and uds=PATH"),
        ] {
            let message = vsock_override(OsStr::new(value)).unwrap_err();
            assert!(message.contains(part), "{value}: {message}");
        }
    }
}
