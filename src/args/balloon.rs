//! `--balloon`.

use std::ffi::OsStr;

use super::{fields, size};

const FIELDS: &str = "size=SIZE, deflate-on-oom, stats=SECONDS and reporting";

/// `--balloon [size=SIZE][,deflate-on-oom][,stats=SECONDS][,reporting]`
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct BalloonArg {
    /// Bytes that the guest is to give up.
    pub(crate) size: u64,
    /// The guest takes memory back before it kills a process for want of it.
    pub(crate) deflate_on_oom: bool,
    /// Seconds from one statistics to the next; 0 for none.
    pub(crate) stats: u16,
    /// The guest reports pages that it has freed.
    pub(crate) reporting: bool,
}

impl BalloonArg {
    pub(super) fn parse(value: &OsStr) -> Result<Self, String> {
        let mut balloon = Self::default();
        if value.is_empty() {
            return Ok(balloon);
        }
        let mut seen = Vec::new();
        for field in fields::split(value) {
            let field = field.to_string_lossy().into_owned();
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field.as_str(), None),
            };
            match (key, value) {
                ("size", Some(value)) => {
                    balloon.size = size::parse(value).map_err(|error| format!("size: {error}"))?;
                }
                ("stats", Some(value)) => {
                    balloon.stats = value
                        .parse()
                        .map_err(|_| "stats wants a number of seconds, 0 to 65535".to_owned())?;
                }
                ("deflate-on-oom", None) => balloon.deflate_on_oom = true,
                ("reporting", None) => balloon.reporting = true,
                ("size" | "stats", None) => return Err(format!("{key} wants a value: {key}=…")),
                ("deflate-on-oom" | "reporting", Some(_)) => return Err(format!("{key} takes no value")),
                _ => return Err(format!("unknown field '{key}'; known are {FIELDS}")),
            }
            if seen.iter().any(|seen| seen == key) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key.to_owned());
        }
        Ok(balloon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<BalloonArg, String> {
        BalloonArg::parse(OsStr::new(value))
    }

    #[test]
    fn a_balloon_is_empty_unless_it_is_given_a_size() {
        assert_eq!(parse(""), Ok(BalloonArg::default()));
        let all = BalloonArg { size: 64 << 20, deflate_on_oom: true, stats: 5, reporting: true };
        assert_eq!(parse("size=64M,deflate-on-oom,stats=5,reporting"), Ok(all));
    }

    #[test]
    fn a_wrong_balloon_says_what_is_wrong() {
        for (value, finding) in [
            ("64M", "unknown field '64M'; known are size=SIZE"),
            ("size", "size wants a value"),
            ("size=x", "size: "),
            ("stats=70000", "0 to 65535"),
            ("stats=-1", "0 to 65535"),
            ("reporting=on", "reporting takes no value"),
            ("reporting,reporting", "reporting is given twice"),
            ("size=1M,", "unknown field ''"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.contains(finding), "{value}: {error}");
        }
    }
}
