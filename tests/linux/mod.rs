//! Real Linux guests: stock Debian kernels and the small one, up to userland and down again.
//!
//! They need a host on which the CPU runs guests, and kernels and images from `resources/`, which `tests/run 3` names in
//! `RVMM_KERNEL_SMALL`, `RVMM_KERNEL_6_1`, `RVMM_KERNEL_6_12`, `RVMM_INITRD_6_1`, `RVMM_INITRD_6_12`, `RVMM_ROOTFS` and
//! `RVMM_TOOLS_ROOTFS`.
//! It also sets `RVMM_LINUX_GUESTS=1`; without that each test is [skipped](skip).
//!
//! Guests run a command (`resources/guest/session`) and power off. One boot on an emulated host takes seconds, so a
//! test asserts all that belongs to its boot.

mod balloon;
mod bench;
mod boot;
mod boot_timer;
mod console;
mod control;
mod cpu_template;
mod demo;
mod disks;
mod ends;
mod guest;
mod limits;
mod machine;
mod metadata;
mod names;
mod net;
mod pci;
mod rest;
mod restored_sockets;
mod snapshots;
mod tools;
mod vmgenid;
mod vsock;

use std::path::PathBuf;

use skip::Capability;

use guest::{Guest, Report, RootImage};

/// Returns from a test of a Linux guest that was not asked for, which is reported as skipped.
macro_rules! require_linux_guests {
    () => {
        if !$crate::linux::wanted() {
            return;
        }
    };
}
use require_linux_guests;

/// Whether the tests here are to run; if not, the running test is skipped.
fn wanted() -> bool {
    let wanted = std::env::var_os("RVMM_LINUX_GUESTS").is_some_and(|value| value == "1");
    if !wanted {
        skip::skip(
            Capability::LinuxGuests,
            "RVMM_LINUX_GUESTS=1 is not set; `tests/run 3` runs the Linux guests",
        );
    }
    wanted
}

/// A kernel or an image that `tests/run` has made.
///
/// # Panics
/// When `variable` is not set, or names nothing.
#[track_caller]
fn resource(variable: &str) -> PathBuf {
    let path = PathBuf::from(
        std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set; `tests/run 3` sets it")),
    );
    assert!(path.exists(), "{variable}: there is no {}", path.display());
    path
}
