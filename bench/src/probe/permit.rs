//! Leave to try what could hurt a kernel: only in a guest that the benchmark has started itself.
//!
//! Several signs are asked for, each of which is missing where the host's kernel is shared, so that no single mistake, be it
//! of the benchmark or of a runtime that shows wrong files, lets anything be tried on a host.

use std::fs;
use std::path::Path;

use nix::unistd::{getpid, getppid};

use super::sight;

/// The parameter that only a VM of this benchmark has on its kernel's command line.
const PARAMETER: &str = "BENCH_TASK=";

/// What a kernel's first namespaces are called, in `/proc/PID/ns`: `PROC_*_INIT_INO` of the kernel's `proc_ns.h`.
const FIRST_NAMESPACES: [(&str, &str); 3] =
    [("pid", "pid:[4026531836]"), ("user", "user:[4026531837]"), ("uts", "uts:[4026531838]")];

/// Leave to try. Only [`ask`] makes one.
pub(super) struct Permit(());

/// Where the probe runs.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    /// Its parent is the kernel's first process, and it isn't that itself.
    pub(super) child_of_first: bool,
    /// The name of the first process.
    pub(super) first: String,
    /// All namespaces that were looked at are the kernel's first.
    pub(super) first_namespaces: bool,
    /// The kernel's boot id.
    pub(super) boot_id: Option<String>,
    /// The kernel's command line.
    pub(super) command_line: String,
    /// `/proc/cpuinfo` has the flag `hypervisor`.
    pub(super) virtual_processor: bool,
}

impl Situation {
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            child_of_first: getppid().as_raw() == 1 && getpid().as_raw() != 1,
            first: text("/proc/1/comm").trim().to_owned(),
            first_namespaces: FIRST_NAMESPACES.iter().all(|(kind, first)| {
                fs::read_link(format!("/proc/self/ns/{kind}")).is_ok_and(|link| link == Path::new(first))
            }),
            boot_id: sight::boot_id(),
            command_line: text("/proc/cmdline"),
            virtual_processor: text("/proc/cpuinfo").lines().any(|line| {
                line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "hypervisor")
            }),
        }
    }
}

/// A permit for where `situation` is, if that can't be the host whose boot id is `host`.
///
/// # Errors
/// It may be the host, or something that shares its kernel.
pub(super) fn ask(host: &str, situation: &Situation) -> Result<Permit, &'static str> {
    let own = situation.boot_id.as_deref().unwrap_or_default();
    match () {
        () if !is_boot_id(host) => Err("the host's boot id is not known"),
        () if !is_boot_id(own) => Err("this kernel's boot id is not known"),
        () if own.eq_ignore_ascii_case(host) => Err("this is the host's kernel"),
        () if !situation.child_of_first => Err("this is no child of the kernel's first process"),
        () if situation.first != "bench" => Err("the first process is not the benchmark's"),
        () if !situation.first_namespaces => Err("these are not the kernel's first namespaces"),
        () if !situation.command_line.split_whitespace().any(|word| word.starts_with(PARAMETER)) => {
            Err("the kernel was not started by the benchmark")
        }
        () if !situation.virtual_processor => Err("the processor is not a virtual one"),
        () => Ok(Permit(())),
    }
}

/// Whether `text` looks like `/proc/sys/kernel/random/boot_id`.
fn is_boot_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "6c9f0b1e-2f4e-4e0c-9a39-0d7cf2b2a001";

    fn guest() -> Situation {
        Situation {
            child_of_first: true,
            first: "bench".to_owned(),
            first_namespaces: true,
            boot_id: Some("11111111-2f4e-4e0c-9a39-0d7cf2b2a001".to_owned()),
            command_line: "quiet init=/bench BENCH_TASK=run,/probe,probe,try BENCH_END=poweroff".to_owned(),
            virtual_processor: true,
        }
    }

    #[test]
    fn in_a_guest_of_the_benchmark_it_may_be_tried() {
        assert!(ask(HOST, &guest()).is_ok());
    }

    #[test]
    fn each_sign_that_is_missing_refuses() {
        let without = [
            Situation { child_of_first: false, ..guest() },
            Situation { first: "systemd".to_owned(), ..guest() },
            Situation { first_namespaces: false, ..guest() },
            Situation { boot_id: None, ..guest() },
            Situation { boot_id: Some(String::new()), ..guest() },
            Situation { boot_id: Some(HOST.to_owned()), ..guest() },
            Situation { boot_id: Some(HOST.to_uppercase()), ..guest() },
            Situation { command_line: "quiet xBENCH_TASK=start".to_owned(), ..guest() },
            Situation { virtual_processor: false, ..guest() },
        ];
        for situation in without {
            assert!(ask(HOST, &situation).is_err(), "{situation:?}");
        }
        for host in ["", "host", "6c9f0b1e-2f4e-4e0c-9a39-0d7cf2b2a00"] {
            assert!(ask(host, &guest()).is_err(), "{host:?}");
        }
    }

    #[test]
    fn where_the_tests_run_nothing_may_be_tried() {
        let here = Situation::read();
        let host = sight::boot_id().unwrap_or_default();
        assert!(ask(&host, &here).is_err());
        // Even if the benchmark were wrong about the host.
        assert!(ask(HOST, &here).is_err());
    }
}
