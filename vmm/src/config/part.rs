//! The configuration piece by piece, as REST gives it before the VM starts.

use serde::Deserialize;

use super::{
    BalloonConfig, BlockConfig, BootSourceConfig, ConfigError, CpuConfig, CpuTemplate, EntropyConfig,
    MachineConfig, MetricsConfig, MmdsConfig, NetConfig, SerialConfig, StaticTemplate, VmConfig, VsockConfig,
};
use crate::boot;
use crate::memory::HugePages;

/// Changes to vCPUs and memory; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineUpdate {
    /// Number of vCPUs.
    pub vcpu_count: Option<u32>,
    /// Guest memory in MiB.
    pub mem_size_mib: Option<u64>,
    /// Two threads per core.
    pub smt: Option<bool>,
    /// Keep track of the pages that the guest writes.
    pub track_dirty_pages: Option<bool>,
    /// Which host pages back guest memory.
    pub huge_pages: Option<HugePages>,
    /// Firecracker's templates by name, of which only "None" is accepted.
    pub cpu_template: Option<StaticTemplate>,
}

impl MachineUpdate {
    fn apply(&self, machine: &mut MachineConfig) -> Result<(), ConfigError> {
        let Self { vcpu_count, mem_size_mib, smt, track_dirty_pages, huge_pages, cpu_template: _ } = self;
        if *self == Self::default() {
            return Err(ConfigError::NothingToChange);
        }
        machine.vcpu_count = vcpu_count.unwrap_or(machine.vcpu_count);
        machine.mem_size_mib = mem_size_mib.unwrap_or(machine.mem_size_mib);
        machine.smt = smt.unwrap_or(machine.smt);
        machine.track_dirty_pages = track_dirty_pages.unwrap_or(machine.track_dirty_pages);
        machine.huge_pages = huge_pages.unwrap_or(machine.huge_pages);
        Ok(())
    }
}

/// One piece of a VM's configuration. A device with an id that is there already takes the place of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the guest boots.
    BootSource(BootSourceConfig),
    /// vCPUs and memory.
    Machine(MachineConfig),
    /// Some of vCPUs and memory.
    MachineUpdate(MachineUpdate),
    /// Changes to what the guest's CPU shows.
    Cpu(CpuTemplate),
    /// A disk.
    Drive(BlockConfig),
    /// A network interface.
    Net(NetConfig),
    /// The socket device.
    Vsock(VsockConfig),
    /// The metadata service.
    Mmds(MmdsConfig),
    /// The balloon.
    Balloon(BalloonConfig),
    /// The source of randomness.
    Entropy(EntropyConfig),
    /// Where the serial port goes.
    Serial(SerialConfig),
    /// Where metrics are written.
    Metrics(MetricsConfig),
}

impl Part {
    /// What it is to give the VM this part, for a refusal.
    pub fn what(&self) -> &'static str {
        match self {
            Self::BootSource(_) => "to set the boot source",
            Self::Machine(_) | Self::MachineUpdate(_) => "to change vCPUs or memory",
            Self::Cpu(_) => "to change what the CPU shows",
            Self::Drive(_) => "to add a drive",
            Self::Net(_) => "to add a network interface",
            Self::Vsock(_) => "to add vsock",
            Self::Mmds(_) => "to set up the metadata service",
            Self::Balloon(_) => "to add a balloon",
            Self::Entropy(_) => "to add a source of randomness",
            Self::Serial(_) => "to set up the serial port",
            Self::Metrics(_) => "to set up metrics",
        }
    }
}

impl VmConfig {
    /// This configuration with `part` in it. It may lack a kernel still.
    ///
    /// # Errors
    /// What is wrong with the part, or with the two together.
    pub fn with(&self, part: Part) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        match part {
            Part::BootSource(source) => {
                source.check_files()?;
                config.boot_source = Some(source);
            }
            Part::Machine(machine) => config.machine_config = machine,
            Part::MachineUpdate(update) => update.apply(&mut config.machine_config)?,
            Part::Cpu(template) => config.cpu_config = Some(CpuConfig::Template(template)),
            Part::Drive(drive) => put(&mut config.drives, drive, |drive| &drive.drive_id),
            Part::Net(net) => put(&mut config.network_interfaces, net, |net| &net.iface_id),
            Part::Vsock(vsock) => config.vsock = Some(vsock),
            Part::Mmds(mmds) => config.mmds_config = Some(mmds),
            Part::Balloon(balloon) => config.balloon = Some(balloon),
            Part::Entropy(entropy) => config.entropy = Some(entropy),
            Part::Serial(serial) => config.serial = Some(serial),
            Part::Metrics(metrics) => config.metrics = Some(metrics),
        }
        config.validate_parts()?;
        Ok(config)
    }
}

/// Replaces the item with the id of `item`, or adds `item`.
fn put<T>(items: &mut Vec<T>, item: T, id: impl Fn(&T) -> &str) {
    match items.iter_mut().find(|there| id(there) == id(&item)) {
        Some(there) => *there = item,
        None => items.push(item),
    }
}

impl BootSourceConfig {
    /// Opens kernel and initrd, so that a wrong path is known when it is given.
    fn check_files(&self) -> Result<(), ConfigError> {
        for (what, path) in [("kernel", Some(&self.kernel_image_path)), ("initrd", self.initrd_path.as_ref())]
        {
            let Some(path) = path else { continue };
            boot::check(path).map_err(|error| ConfigError::BootFile {
                what,
                path: path.clone(),
                message: error.to_string(),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(id: &str, path: &str, root: bool) -> Part {
        let json = serde_json::json!({"drive_id": id, "is_root_device": root, "path_on_host": path});
        Part::Drive(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_device_with_an_id_that_is_there_takes_its_place() {
        let config = VmConfig::default().with(drive("a", "one", true)).unwrap();
        let config = config.with(drive("b", "two", false)).unwrap().with(drive("a", "three", true)).unwrap();
        let paths: Vec<_> =
            config.drives.iter().filter_map(|drive| drive.path_on_host.as_deref()?.to_str()).collect();
        assert_eq!(paths, ["three", "two"]);
        let error = config.with(drive("b", "two", true)).unwrap_err();
        assert!(matches!(error, ConfigError::TwoRootDevices { .. }), "{error}");
    }

    #[test]
    fn what_is_absent_from_a_change_of_the_machine_stays() {
        let update = |json: &str| Part::MachineUpdate(serde_json::from_str(json).unwrap());
        let config = VmConfig::default().with(update(r#"{"vcpu_count": 4}"#)).unwrap();
        let config = config.with(update(r#"{"mem_size_mib": 256}"#)).unwrap();
        assert_eq!((config.machine_config.vcpu_count, config.machine_config.mem_size_mib), (4, 256));
        assert_eq!(config.with(update("{}")).unwrap_err(), ConfigError::NothingToChange);
        assert!(matches!(
            config.with(update(r#"{"vcpu_count": 33}"#)).unwrap_err(),
            ConfigError::Vcpus { count: 33 }
        ));
    }

    #[test]
    fn a_kernel_that_is_not_there_is_refused_when_it_is_given() {
        let part = |path: &str| {
            Part::BootSource(serde_json::from_value(serde_json::json!({"kernel_image_path": path})).unwrap())
        };
        for path in ["/nonexistent/vmlinux", "/dev/null", "/"] {
            let error = VmConfig::default().with(part(path)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("kernel {path}: ")), "{error}");
        }
    }
}
