//! What follows from the rights that the probe has, where nothing may be tried.

use caps::Capability;

use crate::probe::Sight;
use crate::results::{Answer, Means};

use super::facts;

/// The user-id map of a kernel's first user namespace.
const FIRST_USERS: &str = "0 0 4294967295";

/// What `/proc/self/status` has of rights.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Status {
    /// Mode of seccomp.
    pub(super) seccomp: Option<u32>,
    /// No program that it starts can have more rights.
    pub(super) no_new_privileges: Option<bool>,
    /// Effective capabilities, a bit each.
    pub(super) capabilities: u64,
}

impl Status {
    pub(super) fn of(seen: &Sight) -> Self {
        let text = facts::file(seen, "/proc/self/status");
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
        };
        Self {
            seccomp: value("Seccomp").and_then(|text| text.parse().ok()),
            no_new_privileges: value("NoNewPrivs").map(|text| text != "0"),
            capabilities: value("CapEff").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0),
        }
    }

    fn has(&self, capability: Capability) -> bool {
        self.capabilities & capability.bitmask() != 0
    }
}

/// Names of the capabilities whose bits are set, in the order of their numbers.
pub(super) fn names(capabilities: u64) -> Vec<String> {
    let mut known: Vec<_> =
        caps::all().into_iter().filter(|known| capabilities & known.bitmask() != 0).collect();
    known.sort_by_key(Capability::index);
    let unknown = known.iter().fold(capabilities, |rest, known| rest & !known.bitmask());
    let unknown = (0..64).filter(|bit| unknown >> bit & 1 != 0).map(|bit| format!("CAP_{bit}"));
    known.iter().map(ToString::to_string).chain(unknown).collect()
}

/// Whether it can raise a kernel panic.
pub(super) fn panic(seen: &Sight) -> Answer {
    let said = if seen.sysrq { "can be opened for writing" } else { "cannot be opened for writing" };
    Answer { yes: seen.sysrq, by: Means::Rights, seen: format!("/proc/sysrq-trigger {said}") }
}

/// Whether it can load a kernel module.
pub(super) fn load_module(seen: &Sight, status: &Status) -> Answer {
    let disabled = facts::file(seen, "/proc/sys/kernel/modules_disabled");
    match disabled {
        "" => answer(false, "the kernel shows no /proc/sys/kernel/modules_disabled, so it has no modules"),
        "0" => by_capability(seen, status, Capability::CAP_SYS_MODULE),
        _ => answer(false, "/proc/sys/kernel/modules_disabled is set"),
    }
}

/// Whether it can set the clock.
pub(super) fn set_clock(seen: &Sight, status: &Status) -> Answer {
    by_capability(seen, status, Capability::CAP_SYS_TIME)
}

/// Both are asked of the first user namespace: a capability in another one does not count.
fn by_capability(seen: &Sight, status: &Status, capability: Capability) -> Answer {
    let map = facts::words(seen, "/proc/self/uid_map");
    match () {
        () if !status.has(capability) => answer(false, &format!("it lacks {capability}")),
        () if map != FIRST_USERS => {
            answer(false, &format!("it has {capability} in a user namespace of its own only"))
        }
        () if status.seccomp == Some(2) => {
            answer(true, &format!("it has {capability}; its seccomp filter may still forbid it"))
        }
        () => answer(true, &format!("it has {capability}")),
    }
}

fn answer(yes: bool, seen: &str) -> Answer {
    Answer { yes, by: Means::Rights, seen: seen.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(status: &str, map: &str, modules_disabled: Option<&str>) -> Sight {
        let files = [
            ("/proc/self/status", Some(status)),
            ("/proc/self/uid_map", Some(map)),
            ("/proc/sys/kernel/modules_disabled", modules_disabled),
        ];
        let files = files.into_iter().filter_map(|(path, text)| Some((path.to_owned(), text?.to_owned())));
        Sight { files: files.collect(), ..Sight::default() }
    }

    const ROOT: &str =
        "Name:\tprobe\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t0\nSeccomp_filters:\t0";

    fn loads_and_sets(seen: &Sight) -> [bool; 2] {
        let status = Status::of(seen);
        [load_module(seen, &status).yes, set_clock(seen, &status).yes]
    }

    #[test]
    fn the_status_of_a_process_is_read() {
        let status = Status::of(&sight(ROOT, "", None));
        assert_eq!(
            status,
            Status { seccomp: Some(0), no_new_privileges: Some(true), capabilities: 0x1ff_ffff_ffff }
        );
        assert_eq!(Status::of(&sight("Seccomp:\n\u{1b}[31mCapEff: x", "", None)), Status::default());
    }

    #[test]
    fn capabilities_have_names_and_new_ones_their_number() {
        assert_eq!(names(1 | 1 << 16 | 1 << 63), ["CAP_CHOWN", "CAP_SYS_MODULE", "CAP_63"]);
        assert!(names(0).is_empty());
    }

    #[test]
    fn root_of_the_host_can_load_modules_and_set_the_clock() {
        assert_eq!(loads_and_sets(&sight(ROOT, "         0          0 4294967295", Some("0"))), [true, true]);
        assert_eq!(loads_and_sets(&sight(ROOT, "0 0 4294967295", Some("1"))), [false, true]);
    }

    #[test]
    fn a_kernel_without_modules_loads_none() {
        assert_eq!(loads_and_sets(&sight(ROOT, "0 0 4294967295", None)), [false, true]);
    }

    #[test]
    fn neither_can_be_done_without_the_capability_or_in_a_user_namespace() {
        assert_eq!(
            loads_and_sets(&sight("CapEff:\t00000000a80425fb", "0 0 4294967295", Some("0"))),
            [false, false]
        );
        assert_eq!(loads_and_sets(&sight(ROOT, "0 100000 65536", Some("0"))), [false, false]);
    }
}
