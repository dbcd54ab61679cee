//! System tests: the `rvmm` program run the way a user runs it, with bare guests (`guests/*.S`) that need neither Linux
//! nor hardware virtualization. Each test says what a user or a guest sees.
//!
//! Tests that boot a guest need `/dev/kvm`. Without it they are [skipped](skip), or fail if `RVMM_REQUIRE` says so.
//! `RVMM_TEST_TIMEOUT` is the longest wait for anything, in seconds.
//!
//! Real Linux guests are in [`linux`], and run when `tests/run 3` asks for them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

mod support;

mod api;
mod bad_input;
mod bench;
mod block;
mod boot;
mod boot_timer;
mod console;
mod cpu_template;
mod cpus;
mod diagnosis;
mod ends;
mod entropy;
mod host;
mod layering;
mod linux;
mod log;
mod long;
mod names;
mod net;
mod pci;
mod seccomp;
mod snapshots;
mod terminal;
mod virtio_console;
