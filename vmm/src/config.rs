//! What a VM is made of. Flags, a JSON file and REST bodies all become a [`VmConfig`], and it is validated here, once.

pub mod cmdline;
mod drives;
mod error;
mod logger;
mod net;
mod part;
mod restored;
mod serial;
mod snapshot;
#[cfg(test)]
mod tests;
mod transport;

use std::fs::Metadata;
use std::path::{Path, PathBuf};

pub use devices::mmds::{MmdsConfig, MmdsConfigError, MmdsStore, MmdsVersion};
pub use devices::rate_limiter::{RateLimiterConfig, TokenBucketConfig};
use devices::same_file;
pub use devices::virtio::balloon::{BalloonConfig, BalloonConfigError};
pub use devices::virtio::block::{BlockConfig, BlockConfigError, CacheType, IoEngine};
pub use devices::virtio::console::ConsoleConfig as VirtioConsoleConfig;
pub use devices::virtio::net::{MacAddress, NetConfig, NetConfigError, Protocol, Publish, UserNetConfig};
pub use devices::virtio::rng::EntropyConfig;
pub use devices::virtio::vsock::{VsockConfig, VsockConfigError};
pub use error::ConfigError;
pub use logger::{LogLevel, LoggerConfig};
pub use part::{MachineUpdate, Part};
pub use restored::OverrideError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
pub use serial::SerialConfig;
pub use snapshot::{
    CreateSnapshot, DriveOverride, IncludeDisks, LoadSnapshot, MemBackend, MemBackendType, NetworkOverride,
    SnapshotType, VsockOverride,
};
pub use transport::Transport;

use crate::cpu::template::TemplateFileError;
pub use crate::cpu::template::{CpuConfig, CpuTemplate, StaticTemplate};
use crate::json::{self, JsonError};
use crate::memory::{HugePages, MIB};
pub use crate::metrics::MetricsConfig;

/// Largest number of vCPUs that a guest can have.
pub const MAX_VCPUS: u32 = 32;
/// Smallest guest memory in MiB: below it there is no room for a kernel.
pub const MIN_MEMORY_MIB: u64 = 4;
/// Guest memory when nothing is said, in MiB.
pub const DEFAULT_MEMORY_MIB: u64 = 128;

/// Kernel command line when none is given, and behind it [what the transport adds](Transport::cmdline). `reboot=k`: reset by the keyboard controller, at once; `panic=-1`: a panic
/// resets instead of hanging; `quiet`: each console byte is an exit; the rest skips probes for what is not there.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 quiet reboot=k panic=-1 tsc=reliable i8042.noaux i8042.nomux i8042.dumbkbd random.trust_cpu=on";

const SERIAL_CONSOLE: &str = "console=ttyS0";
const BOTH_CONSOLES: &str = "console=ttyS0 console=hvc0";

/// `boot-source`: what the guest boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSourceConfig {
    /// Kernel: an uncompressed ELF `vmlinux` or a bzImage.
    pub kernel_image_path: PathBuf,
    /// Kernel command line; [`DEFAULT_CMDLINE`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_args: Option<String>,
    /// Initial RAM file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<PathBuf>,
}

/// `machine-config`: vCPUs and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpu_count: u32,
    /// Guest memory in MiB.
    pub mem_size_mib: u64,
    /// Two threads per core; else each vCPU is a core.
    #[serde(default)]
    pub smt: bool,
    /// Keep track of the pages that the guest writes, for diff snapshots.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Which host pages back guest memory.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// Which bus the virtio devices are on, a key of rvmm's own; absent: what the command line leaves
    /// ([`VmConfig::transport`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Firecracker's templates by name, of which only "None" is accepted.
    #[serde(default, skip_serializing)]
    pub cpu_template: StaticTemplate,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: DEFAULT_MEMORY_MIB,
            smt: false,
            track_dirty_pages: false,
            huge_pages: HugePages::None,
            cpu_template: StaticTemplate::None,
            transport: None,
        }
    }
}

/// Keys of the REST configuration that rvmm does not have yet.
const NOT_SUPPORTED: [&str; 2] = ["memory-hotplug", "pmem"];

/// What is behind key number `KEY` of `NOT_SUPPORTED`: only "nothing" is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotSupported<const KEY: usize>;

impl<'de, const KEY: usize> Deserialize<'de> for NotSupported<KEY> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null => Ok(Self),
            serde_json::Value::Array(items) if items.is_empty() => Ok(Self),
            _ => {
                let key = NOT_SUPPORTED.get(KEY).copied().unwrap_or_default();
                Err(serde::de::Error::custom(format_args!("leave out `{key}`, which is not supported yet,")))
            }
        }
    }
}

impl<const KEY: usize> Serialize for NotSupported<KEY> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

/// The whole machine, with the keys of `GET /vm/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmConfig {
    /// What the guest boots. Required to start.
    pub boot_source: Option<BootSourceConfig>,
    /// virtio-block devices, in the order in which the guest sees them (the root device first).
    #[serde(default)]
    pub drives: Vec<BlockConfig>,
    /// vCPUs and memory.
    #[serde(default)]
    pub machine_config: MachineConfig,
    /// virtio-net devices, in the order in which the guest sees them.
    #[serde(default)]
    pub network_interfaces: Vec<NetConfig>,
    /// virtio-rng device; absent: none.
    #[serde(default)]
    pub entropy: Option<EntropyConfig>,
    /// virtio-balloon device; absent: none.
    #[serde(default)]
    pub balloon: Option<BalloonConfig>,
    /// Where metrics are written; absent: nowhere.
    #[serde(default)]
    pub metrics: Option<MetricsConfig>,
    /// virtio-console device, a key of rvmm's own; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<VirtioConsoleConfig>,
    /// Changes to what the guest's CPU shows, or the name of such; absent: none.
    #[serde(default)]
    pub cpu_config: Option<CpuConfig>,
    /// How the VMM logs; absent: as the options say.
    #[serde(default)]
    pub logger: Option<LoggerConfig>,
    #[serde(default)]
    memory_hotplug: NotSupported<0>,
    /// The metadata service; absent: none.
    #[serde(default)]
    pub mmds_config: Option<MmdsConfig>,
    #[serde(default)]
    pmem: NotSupported<1>,
    /// Where the serial port goes, a key of rvmm's own in a file; absent: where the options say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<SerialConfig>,
    /// virtio-vsock device; absent: none.
    #[serde(default)]
    pub vsock: Option<VsockConfig>,
    /// The guest has a [boot timer](devices::legacy::boot_timer). The command line has it, the wire has no name for it.
    #[serde(skip)]
    pub boot_timer: bool,
}

impl VmConfig {
    /// Reads a configuration from JSON.
    ///
    /// # Errors
    /// What is wrong, with its field, line and column: syntax, an unknown key, a value of the wrong type.
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        json::read(text.as_bytes())
    }

    /// Checks everything that can be checked without opening a file, for a VM that is to start.
    ///
    /// # Errors
    /// The first thing that is wrong, with its value and the mend.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.boot_source.is_none() {
            return Err(ConfigError::NoKernel);
        }
        self.validate_parts()?;
        drives::validate_files(&self.drives)
    }

    /// Checks the same but for the kernel, which may still come.
    fn validate_parts(&self) -> Result<(), ConfigError> {
        self.validate_machine()?;
        drives::validate(&self.drives)?;
        net::validate(&self.network_interfaces, self.machine_config.track_dirty_pages)?;
        if let Some(mmds) = &self.mmds_config {
            mmds.validate(&self.network_interfaces)?;
        }
        self.validate_balloon()?;
        let one_of_a_kind =
            [self.entropy.is_some(), self.balloon.is_some(), self.console.is_some(), self.vsock.is_some()];
        let count = self.drives.len()
            + self.network_interfaces.len()
            + one_of_a_kind.map(usize::from).iter().sum::<usize>();
        let max = self.transport().max_devices();
        if count > max {
            return Err(ConfigError::TooManyDevices { count, max });
        }
        if let Some(vsock) = &self.vsock {
            vsock.validate()?;
        }
        if let Some(CpuConfig::Template(template)) = &self.cpu_config {
            template.validate()?;
        }
        Ok(())
    }

    fn validate_machine(&self) -> Result<(), ConfigError> {
        let machine = &self.machine_config;
        if !(1..=MAX_VCPUS).contains(&machine.vcpu_count) {
            return Err(ConfigError::Vcpus { count: machine.vcpu_count });
        }
        let mib = machine.mem_size_mib;
        if mib < MIN_MEMORY_MIB {
            return Err(ConfigError::TooLittleMemory { mib });
        }
        match host_memory_mib() {
            Some(host_mib) if mib > host_mib => return Err(ConfigError::TooMuchMemory { mib, host_mib }),
            _ => {}
        }
        let count = machine.vcpu_count;
        if machine.smt && count != 1 && !count.is_multiple_of(2) {
            return Err(ConfigError::Smt { count });
        }
        Ok(())
    }

    fn validate_balloon(&self) -> Result<(), ConfigError> {
        let Some(balloon) = &self.balloon else { return Ok(()) };
        balloon.validate(self.machine_config.mem_size_mib)?;
        match self.machine_config.huge_pages {
            HugePages::Hugetlb2M => Err(ConfigError::BalloonOfHugePages),
            HugePages::None | HugePages::Transparent => Ok(()),
        }
    }

    /// The file of this VM that `file` is, if it is one: rvmm must not write its own output there.
    pub fn file_of_the_guest(&self, file: &Metadata) -> Option<&Path> {
        let source = self.boot_source.iter();
        let boot = source.flat_map(|source| [Some(&source.kernel_image_path), source.initrd_path.as_ref()]);
        let drives = self.drives.iter().map(|drive| drive.path_on_host.as_ref());
        boot.chain(drives)
            .flatten()
            .map(PathBuf::as_path)
            .find(|path| path.metadata().is_ok_and(|theirs| same_file(&theirs, file)))
    }

    /// Puts the template itself in the place of a name for it: a snapshot of the VM, and a guest that boots again, have what
    /// the file had when the VM started.
    ///
    /// # Errors
    /// There is no such template, or its file is none.
    pub fn resolve_cpu_template(&mut self) -> Result<(), TemplateFileError> {
        if let Some(CpuConfig::Named(_)) = &self.cpu_config {
            let template = self.cpu_config.as_ref().map(CpuConfig::template).transpose()?;
            self.cpu_config = template.map(|template| CpuConfig::Template(template.into_owned()));
        }
        Ok(())
    }

    /// The file that the log goes to and what it is to the guest, if it is one of the guest's.
    pub fn log_of_the_guest(&self) -> Option<(&Path, &Path)> {
        let log = self.logger.as_ref()?.log_path.as_deref()?;
        Some((log, self.file_of_the_guest(&log.metadata().ok()?)?))
    }

    /// The drives in the order in which the guest sees them: the root device is /dev/vda.
    pub fn drives_in_order(&self) -> impl Iterator<Item = &BlockConfig> {
        let (root, others): (Vec<_>, Vec<_>) = self.drives.iter().partition(|drive| drive.is_root_device);
        root.into_iter().chain(others)
    }

    /// The bus that the virtio devices are on. When nobody chose one: PCI, unless the kernel is told not to look there,
    /// as those do who wrote their command line for a machine without PCI.
    pub fn transport(&self) -> Transport {
        let cmdline = self.boot_source.as_ref().and_then(|source| source.boot_args.as_deref());
        let mut pci = cmdline.into_iter().flat_map(cmdline::params).filter(|param| param.name == "pci");
        let no_pci =
            pci.any(|param| param.value.is_some_and(|value| value.split(',').any(|one| one == "off")));
        let fitting = if no_pci { Transport::Mmio } else { Transport::Pci };
        self.machine_config.transport.unwrap_or(fitting)
    }

    /// The command line of a kernel that is given none.
    pub fn default_cmdline(&self) -> String {
        let transport = self.machine_config.transport.unwrap_or_default();
        let base = format!("{DEFAULT_CMDLINE} {}", transport.cmdline());
        match self.console {
            // Both get the kernel's messages; the last one is /dev/console, once its driver is there.
            Some(_) => base.replacen(SERIAL_CONSOLE, BOTH_CONSOLES, 1),
            None => base,
        }
    }

    /// The command line that the kernel gets: what was given or the default, and `root=` for a root device.
    pub fn cmdline(&self) -> String {
        let given = self.boot_source.as_ref().and_then(|source| source.boot_args.as_deref());
        let cmdline = given.map_or_else(|| self.default_cmdline(), str::to_owned);
        let has_root = cmdline::params(&cmdline).any(|param| param.name == "root" && param.value.is_some());
        let Some(root) = self.drives.iter().find(|drive| drive.is_root_device).filter(|_| !has_root) else {
            return cmdline;
        };
        let device = root.partuuid.as_ref().map_or("/dev/vda".to_owned(), |uuid| format!("PARTUUID={uuid}"));
        let access = if root.is_read_only { "ro" } else { "rw" };
        cmdline::append(&cmdline, &format!("root={device} {access}"))
    }
}

#[expect(unsafe_code, reason = "sysinfo(2): /proc/meminfo would cost a start-up 50 microseconds")]
fn host_memory_mib() -> Option<u64> {
    // SAFETY: all zeros is a valid `sysinfo`, a struct of integers.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid place for the kernel to write one `sysinfo`.
    let result = unsafe { libc::sysinfo(&raw mut info) };
    (result == 0).then(|| info.totalram.saturating_mul(u64::from(info.mem_unit)) / MIB)
}
