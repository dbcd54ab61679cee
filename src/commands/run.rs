//! `rvmm --kernel …`: runs one VM to its end.

use std::error::Error;
use std::num::NonZeroU64;
use std::path::Path;
use std::rc::Rc;

use vmm::config::{
    BalloonConfig, BlockConfig, BootSourceConfig, CacheType, CpuConfig, EntropyConfig, IoEngine,
    RateLimiterConfig, TokenBucketConfig, VirtioConsoleConfig, VmConfig, VsockConfig, cmdline,
};
use vmm::memory::MIB;
use vmm::text_file;

use super::Outcome;
use super::launch::{self, Launch};
use crate::args::{BalloonArg, Cache, DiskArg, RunArgs};
use crate::logging;
use crate::presence::Presence;

/// Runs the VM that the options describe until it ends, as others see it by `presence`; the exit code says how.
pub(crate) fn run(args: &RunArgs, presence: &Rc<Presence>) -> Outcome {
    let config = configuration(args)?;
    // What the options say is so already; what a file says is known only now.
    if let (Some(_), Some(logger)) = (&args.config_file, &config.logger) {
        logging::change(logger)?;
    }
    let launch = Launch {
        console: &args.console.end,
        on_reset: args.on_reset,
        exit_on: args.exit_on.unwrap_or_default(),
        control: &args.control,
        metadata: &args.metadata,
        start_times: args.timing.start_times(),
    };
    launch.run(config, None, presence)
}

/// The configuration file, if any, with the options laid over it.
fn configuration(args: &RunArgs) -> Result<VmConfig, Box<dyn Error>> {
    let mut config = match &args.config_file {
        Some(path) => read_config(path)?,
        None => VmConfig::default(),
    };
    if args.config_file.is_none() && args.kernel.is_some() {
        // A VM from flags has a source of randomness; one from a file or over REST has what that says.
        config.entropy = Some(EntropyConfig::default());
    }
    launch::set_outputs(&mut config, &args.log, &args.control);
    if let Some(transport) = args.transport {
        config.machine_config.transport = Some(transport.into());
    }
    if args.console.virtio {
        config.console = Some(VirtioConsoleConfig::default());
    }
    set_boot_source(&mut config, args)?;
    config.boot_timer = args.timing.boot_timer;
    config.machine_config.track_dirty_pages |= args.track_dirty_pages;
    if let Some(huge_pages) = args.huge_pages {
        config.machine_config.huge_pages = huge_pages.into();
    }
    if let Some(cpus) = args.cpus {
        config.machine_config.vcpu_count = cpus;
    }
    if let Some(template) = &args.cpu_template {
        config.cpu_config = Some(CpuConfig::Named(template.clone()));
    }
    if let Some(bytes) = args.memory {
        config.machine_config.mem_size_mib = whole_mib("--memory ", bytes)?;
    }
    if let Some(balloon) = &args.balloon {
        config.balloon = Some(balloon_config(balloon)?);
    }
    if let Some(rootfs) = &args.rootfs {
        config.drives.push(drive("rootfs", rootfs, true));
    }
    for (number, disk) in args.disks.iter().enumerate() {
        let id = disk.id.clone().unwrap_or_else(|| format!("disk{number}"));
        config.drives.push(drive(&id, disk, false));
    }
    if let Some(vsock) = &args.vsock {
        config.vsock =
            Some(VsockConfig { vsock_id: None, guest_cid: vsock.cid, uds_path: vsock.uds.clone() });
    }
    let nets = args.nets.iter().enumerate().map(|(number, net)| net.config(number));
    config.network_interfaces.extend(nets);
    Ok(config)
}

/// The size of `bytes` that `option` was given, in MiB.
fn whole_mib(option: &str, bytes: u64) -> Result<u64, String> {
    if bytes.is_multiple_of(MIB) {
        return Ok(bytes / MIB);
    }
    // Whoever leaves the letter out means MiB.
    let meant = if bytes < MIB { bytes.max(1) } else { bytes.div_ceil(MIB) };
    Err(format!("{option}{bytes}: {bytes} bytes are not whole MiB; did you mean {meant}M?"))
}

fn balloon_config(balloon: &BalloonArg) -> Result<BalloonConfig, Box<dyn Error>> {
    let BalloonArg { size, deflate_on_oom, stats, reporting } = *balloon;
    let amount_mib = whole_mib("--balloon size=", size)?;
    Ok(BalloonConfig {
        amount_mib: u32::try_from(amount_mib)
            .map_err(|_| format!("--balloon size={size}: no guest has so much memory"))?,
        deflate_on_oom,
        stats_polling_interval_s: stats,
        free_page_hinting: false,
        free_page_reporting: reporting,
    })
}

/// A drive of the command line.
fn drive(id: &str, arg: &DiskArg, root: bool) -> BlockConfig {
    let DiskArg { path, readonly, engine, cache, direct, bandwidth, ops, id: _ } = arg;
    let limit = |rate: &Option<NonZeroU64>| rate.map(|rate| TokenBucketConfig::per_second(rate.get()));
    let limits = RateLimiterConfig { bandwidth: limit(bandwidth), ops: limit(ops) };
    BlockConfig {
        drive_id: id.to_owned(),
        is_root_device: root,
        path_on_host: Some(path.clone()),
        is_read_only: *readonly,
        cache_type: match cache {
            Cache::Writeback => CacheType::Writeback,
            Cache::Unsafe => CacheType::Unsafe,
        },
        partuuid: None,
        rate_limiter: (limits != RateLimiterConfig::default()).then_some(limits),
        io_engine: engine.map(IoEngine::from),
        socket: None,
        direct: *direct,
    }
}

fn set_boot_source(config: &mut VmConfig, args: &RunArgs) -> Result<(), Box<dyn Error>> {
    let RunArgs { kernel, initrd, cmdline: whole, append, .. } = args;
    match (&mut config.boot_source, kernel) {
        (Some(source), Some(kernel)) => source.kernel_image_path.clone_from(kernel),
        (source @ None, Some(kernel)) => {
            let kernel_image_path = kernel.clone();
            *source = Some(BootSourceConfig { kernel_image_path, boot_args: None, initrd_path: None });
        }
        (_, None) => {}
    }
    let default_cmdline = config.default_cmdline();
    let Some(source) = &mut config.boot_source else {
        return match (initrd, whole, append) {
            (None, None, None) => Ok(()),
            _ => Err("--initrd, --cmdline and --append need a kernel: add --kernel FILE".into()),
        };
    };
    if initrd.is_some() {
        source.initrd_path.clone_from(initrd);
    }
    if whole.is_some() {
        source.boot_args.clone_from(whole);
    }
    if let Some(more) = append {
        if cmdline::has_open_quote(more) {
            return Err(format!("--append {more}: a quote is not closed").into());
        }
        let base = source.boot_args.take().unwrap_or(default_cmdline);
        source.boot_args = Some(cmdline::append(&base, more));
    }
    Ok(())
}

fn read_config(path: &Path) -> Result<VmConfig, Box<dyn Error>> {
    let named = |error: &dyn Error| format!("configuration {}: {error}", path.display());
    let text = text_file::read(path).map_err(|error| named(&error))?;
    VmConfig::from_json(&text).map_err(|error| named(&error).into())
}
