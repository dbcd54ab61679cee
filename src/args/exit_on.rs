//! `--exit-on`.

use std::ffi::OsStr;

use vmm::controller::ExitOn;

use super::{OnReset, Stop, fields};

const FORM: &str = "panic=CODE, triple-fault=CODE and reset=CODE, where CODE is 0 to 255";

/// `panic=CODE,triple-fault=CODE,reset=CODE`, any of them.
pub(super) fn parse(value: &OsStr) -> Result<ExitOn, String> {
    let mut exit_on = ExitOn::default();
    for field in fields::split(value) {
        let (key, value) = fields::key_value(&field);
        let (key, value) = (key.to_string_lossy(), value.map(OsStr::to_string_lossy));
        let code = match &*key {
            "panic" => &mut exit_on.panic,
            "triple-fault" => &mut exit_on.triple_fault,
            "reset" => &mut exit_on.reset,
            _ => return Err(format!("unknown event '{key}'; known are {FORM}")),
        };
        let value = value.ok_or_else(|| format!("{key} wants an exit code: {key}=CODE, 0 to 255"))?;
        let number =
            value.parse().map_err(|_| format!("{key}={value}: an exit code is a number from 0 to 255"))?;
        if code.replace(number).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    Ok(exit_on)
}

/// Refuses what contradicts `on_reset`.
pub(crate) fn check(exit_on: ExitOn, on_reset: OnReset) -> Result<(), Stop> {
    if exit_on.reset.is_some() && on_reset == OnReset::Restart {
        let message = "--exit-on reset=CODE ends rvmm at a reset, and --on-reset restart boots the guest again: leave one out";
        return Err(Stop::usage(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_code() {
        let all = parse(OsStr::new("panic=3,triple-fault=0,reset=255")).unwrap();
        assert_eq!(all, ExitOn { panic: Some(3), triple_fault: Some(0), reset: Some(255) });
        let one = parse(OsStr::new("triple-fault=7")).unwrap();
        assert_eq!(one, ExitOn { triple_fault: Some(7), ..ExitOn::default() });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, words) in [
            ("", "unknown event ''"),
            ("panic", "panic=CODE"),
            ("panic=", "0 to 255"),
            ("panic=256", "panic=256"),
            ("panic=-1", "panic=-1"),
            ("reset=0x10", "reset=0x10"),
            ("panic=1,panic=2", "twice"),
            ("oops=1", "triple-fault=CODE"),
        ] {
            let error = parse(OsStr::new(value)).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
    }
}
