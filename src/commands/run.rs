//! `rvmm --kernel …`

use super::Outcome;
use crate::args::{DiskArg, Engine, RootfsArg, RunArgs};

/// Runs a VM.
pub(crate) fn run(args: &RunArgs) -> Outcome {
    let RunArgs {
        kernel: _,
        initrd: _,
        cmdline: _,
        append: _,
        config_file: _,
        cpus: _,
        memory: _,
        on_reset: _,
        id: _,
        rootfs,
        disks,
        console: _,
        log_level: _,
        log_file: _,
    } = args;
    if let Some(RootfsArg { path: _, readonly: _ }) = rootfs {}
    for DiskArg { path: _, readonly: _, engine, id: _ } in disks {
        let (Some(Engine::Sync | Engine::IoUring) | None) = engine;
    }
    Err("running a VM is not there yet".into())
}
