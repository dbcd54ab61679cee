//! `--vsock`.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::fields;

const VSOCK_FIELDS: &str = "cid=N and uds=PATH";

/// `--vsock cid=N,uds=PATH`
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct VsockArg {
    /// Context id of the guest.
    pub(crate) cid: u64,
    /// The unix socket that host programs connect to.
    pub(crate) uds: PathBuf,
}

impl VsockArg {
    pub(super) fn parse(value: &OsStr) -> Result<Self, String> {
        let (mut cid, mut uds) = (None, None);
        for field in fields::split(value) {
            let (key, value) = fields::key_value(&field);
            let key = key.to_string_lossy();
            let again = match (key.as_ref(), value) {
                ("cid", Some(value)) => {
                    let number = value.to_str().and_then(|number| number.parse().ok());
                    let number = number.ok_or("cid wants a whole number, 3 or more")?;
                    cid.replace(number).is_some()
                }
                ("uds", Some(value)) => uds.replace(PathBuf::from(value)).is_some(),
                ("cid" | "uds", None) => return Err(format!("{key} wants a value: {key}=…")),
                _ => return Err(format!("unknown field '{key}'; known are {VSOCK_FIELDS}")),
            };
            if again {
                return Err(format!("{key} is given twice"));
            }
        }
        match (cid, uds) {
            (Some(cid), Some(uds)) => Ok(Self { cid, uds }),
            (None, _) => Err(format!("cid=N is missing; fields are {VSOCK_FIELDS}")),
            (_, None) => Err(format!("uds=PATH is missing; fields are {VSOCK_FIELDS}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<VsockArg, String> {
        VsockArg::parse(OsStr::new(value))
    }

    #[test]
    fn cid_and_path_are_read_in_any_order_and_a_doubled_comma_is_one() {
        assert_eq!(parse("cid=3,uds=/run/v.sock"), Ok(VsockArg { cid: 3, uds: "/run/v.sock".into() }));
        assert_eq!(parse("uds=a,,b,cid=7"), Ok(VsockArg { cid: 7, uds: "a,b".into() }));
    }

    #[test]
    fn what_is_missing_twice_or_unknown_is_named() {
        for (value, part) in [
            ("", "unknown field ''"),
            ("cid=3", "uds=PATH is missing"),
            ("uds=v", "cid=N is missing"),
            ("cid,uds=v", "cid wants a value"),
            ("cid=x,uds=v", "cid wants a whole number"),
            ("cid=-1,uds=v", "cid wants a whole number"),
            ("cid=3,cid=4,uds=v", "cid is given twice"),
            ("cid=3,uds=v,uds=w", "uds is given twice"),
            ("cid=3,uds=v,port=1", "unknown field 'port'; known are cid=N and uds=PATH"),
        ] {
            let message = parse(value).unwrap_err();
            assert!(message.contains(part), "{value}: {message}");
        }
    }
}
