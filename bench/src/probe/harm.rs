//! What could hurt a kernel. Everything here takes a [`Permit`].

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use serde::{Deserialize, Serialize};

use super::permit::Permit;

/// By how much the clock is set forward, and back again.
const HOUR: Duration = Duration::from_hours(1);

/// A file that no kernel takes for a module.
const NO_MODULE: &str = "/tmp/no-module";

/// What was tried.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Trials {
    /// Loading a kernel module.
    pub(crate) load_module: Trial,
    /// Setting the clock.
    pub(crate) set_clock: Trial,
}

/// How it went.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Trial {
    /// It could be done.
    pub(crate) yes: bool,
    /// What was seen, in a few words.
    pub(crate) seen: String,
}

/// Tries what leaves the kernel as it was.
pub(super) fn attempt(permit: &Permit) -> Trials {
    Trials { load_module: load_module(permit), set_clock: set_clock(permit) }
}

/// Asks for a module to be loaded from a file that is none: only a kernel that would load one says that it isn't.
fn load_module(_: &Permit) -> Trial {
    let file = fs::write(NO_MODULE, [0; 64]).and_then(|()| fs::File::open(NO_MODULE));
    let file = match file {
        Ok(file) => file,
        Err(error) => return Trial { yes: false, seen: format!("{NO_MODULE}: {error}") },
    };
    let error = finit_module(&file, c"", ModuleInitFlags::empty()).err();
    let _ = fs::remove_file(NO_MODULE);
    match error {
        None | Some(Errno::ENOEXEC) => Trial {
            yes: true,
            seen: "finit_module of a file that is no module: the kernel read it".to_owned(),
        },
        Some(Errno::ENOSYS) => {
            Trial { yes: false, seen: "finit_module: the kernel has no modules".to_owned() }
        }
        Some(error) => Trial { yes: false, seen: format!("finit_module: {error}") },
    }
}

/// Sets the clock an hour forward, looks, and sets it back.
fn set_clock(_: &Permit) -> Trial {
    let clock = ClockId::CLOCK_REALTIME;
    let trial = || {
        let before = clock_gettime(clock)?;
        clock_settime(clock, before + TimeSpec::from_duration(HOUR))?;
        let after = clock_gettime(clock)?;
        clock_settime(clock, before)?;
        Ok::<_, Errno>(after.tv_sec() - before.tv_sec())
    };
    match trial() {
        Ok(seconds) => {
            Trial { yes: seconds >= 3600, seen: format!("clock_settime set it {seconds} s forward") }
        }
        Err(error) => Trial { yes: false, seen: format!("clock_settime: {error}") },
    }
}

/// Has the kernel panic. Returns only if it doesn't, with the reason.
pub(super) fn raise_panic(_: &Permit) -> String {
    match fs::write("/proc/sysrq-trigger", "c") {
        Ok(()) => "after c was written to /proc/sysrq-trigger".to_owned(),
        Err(error) => format!("/proc/sysrq-trigger: {error}"),
    }
}
