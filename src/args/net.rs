//! `--net`.

use std::ffi::OsStr;

use vmm::config::{MacAddress, NetConfig, Publish, UserNetConfig};

use super::fields;

const NET_FIELDS: &str = "tap=NAME or user, and mac=ADDRESS, mtu=N, id=NAME; with a tap vhost=on; with user publish=[ADDR:]HOST:GUEST[/udp] and host=on";

/// `--net tap=NAME[,…]` or `--net user[,…]`
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NetArg {
    tap: Option<String>,
    user: Option<UserNetConfig>,
    mac: Option<MacAddress>,
    mtu: Option<u32>,
    vhost: bool,
    id: Option<String>,
}

impl NetArg {
    pub(super) fn parse(value: &OsStr) -> Result<Self, String> {
        let value = value.to_str().ok_or("it is not valid UTF-8")?;
        let mut net = Self::default();
        let mut publish = Vec::new();
        let mut host = None;
        let mut seen = Vec::new();
        for field in fields::split(OsStr::new(value)) {
            let (key, value) = fields::key_value(&field);
            let (key, value) = (key.to_str().unwrap_or_default(), value.and_then(OsStr::to_str));
            match (key, value) {
                ("tap", Some(value)) => net.tap = Some(value.to_owned()),
                ("user", None) => net.user = Some(UserNetConfig::default()),
                ("mac", Some(value)) => net.mac = Some(parse(value)?),
                ("mtu", Some(value)) => {
                    net.mtu =
                        Some(value.parse().map_err(|_| format!("mtu={value}: expected a whole number"))?);
                }
                ("vhost", Some(value)) => net.vhost = on(key, value)?,
                ("host", Some(value)) => host = Some(on(key, value)?),
                ("id", Some(value)) => net.id = Some(value.to_owned()),
                ("publish", Some(value)) => publish.push(parse::<Publish>(value)?),
                ("tap" | "mac" | "mtu" | "vhost" | "host" | "id" | "publish", None) => {
                    return Err(format!("{key} wants a value: {key}=…"));
                }
                ("user", Some(_)) => return Err("user takes no value".to_owned()),
                _ => return Err(format!("unknown field '{key}'; known are {NET_FIELDS}")),
            }
            if key != "publish" && seen.contains(&key.to_owned()) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key.to_owned());
        }
        match (&net.tap, &mut net.user) {
            (Some(_), Some(_)) => {
                return Err(
                    "tap and user exclude each other: give one of them, or give --net twice".to_owned()
                );
            }
            (None, None) => {
                return Err(format!("tap=NAME or user is missing; known fields are {NET_FIELDS}"));
            }
            (None, Some(_)) if net.vhost => return Err("vhost=on needs a tap".to_owned()),
            (None, Some(user)) => {
                *user = UserNetConfig { publish, host_loopback: host.unwrap_or_default() };
            }
            (Some(_), None) if !publish.is_empty() => {
                return Err(
                    "publish needs user: whoever reaches the tap's network reaches all of the guest's ports"
                        .to_owned(),
                );
            }
            (Some(_), None) if host.is_some() => return Err("host= needs user".to_owned()),
            (Some(_), None) => {}
        }
        Ok(net)
    }

    /// The interface; `number` names one that has no id.
    pub(crate) fn config(&self, number: usize) -> NetConfig {
        let Self { tap, user, mac, mtu, vhost, id } = self.clone();
        NetConfig {
            iface_id: id.unwrap_or_else(|| format!("net{number}")),
            host_dev_name: tap,
            guest_mac: mac,
            mtu,
            rx_rate_limiter: None,
            tx_rate_limiter: None,
            user,
            vhost,
        }
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

fn on(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{key}={value}: it is on or off")),
    }
}
