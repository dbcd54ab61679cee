//! The configuration of a VM from a snapshot: what is in there, with the host's side as it is wanted now.

use std::{io, path};

use super::{ConfigError, LoadSnapshot, VmConfig};

/// Why a snapshot's configuration cannot be that of this VM.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// The VM was given something already that a snapshot has.
    #[error(
        "a snapshot is loaded into a VM of which nothing but logger, metrics and serial was configured; start another rvmm for it"
    )]
    Configured,
    /// There is no such device in the snapshot.
    #[error("the snapshot has no {kind} \"{id}\"; it has {known}")]
    NoSuchDevice {
        /// What kind of device.
        kind: &'static str,
        /// The id that was given.
        id: String,
        /// The ids that there are.
        known: String,
    },
    /// There is no socket device in the snapshot.
    #[error("the snapshot has no vsock device; leave vsock out")]
    NoVsock,
    /// A network of another kind.
    #[error("network interface \"{id}\" of the snapshot is on {is}, which cannot be given {asked}")]
    OtherNet {
        /// Its id.
        id: String,
        /// What it is.
        is: &'static str,
        /// What was asked for.
        asked: &'static str,
    },
    /// What comes of it.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl VmConfig {
    /// The same with every path from the root that a restored VM uses: it is restored in another folder than it was started
    /// in. The paths of [outputs](Self::restored) stay as they are.
    ///
    /// # Errors
    /// When the current folder is gone, and a path is not from the root.
    pub fn from_the_root(&self) -> io::Result<Self> {
        let mut config = self.clone();
        // Each field is named, so that a new one does not compile until it is decided whether it has paths.
        let Self {
            boot_source,
            drives,
            vsock,
            // A file's content has taken the place of its name when the VM started.
            cpu_config: _,
            machine_config: _,
            network_interfaces: _,
            entropy: _,
            balloon: _,
            console: _,
            mmds_config: _,
            memory_hotplug: _,
            pmem: _,
            boot_timer: _,
            // Outputs.
            metrics: _,
            logger: _,
            serial: _,
        } = &mut config;
        let boot = boot_source
            .iter_mut()
            .flat_map(|source| [Some(&mut source.kernel_image_path), source.initrd_path.as_mut()]);
        let drives = drives.iter_mut().flat_map(|drive| [drive.path_on_host.as_mut(), drive.socket.as_mut()]);
        let vsock = vsock.iter_mut().map(|vsock| Some(&mut vsock.uds_path));
        for path in boot.chain(drives).chain(vsock).flatten() {
            *path = path::absolute(&path)?;
        }
        Ok(config)
    }

    /// The configuration `saved` with this one's outputs (logger, metrics and serial port), and what `request` has in place
    /// of devices' ends on the host.
    ///
    /// # Errors
    /// [`OverrideError`] when this one has more than outputs, or an override does not fit.
    pub fn restored(&self, saved: &Self, request: &LoadSnapshot) -> Result<Self, OverrideError> {
        self.has_outputs_only()?;
        let mut config = self.outputs_in(saved.clone());
        config.machine_config.track_dirty_pages = request.track_dirty_pages;
        if let Some(huge_pages) = request.huge_pages {
            config.machine_config.huge_pages = huge_pages;
        }
        config.override_drives(request)?;
        config.override_nets(request)?;
        if let Some(wanted) = &request.vsock_override {
            let vsock = config.vsock.as_mut().ok_or(OverrideError::NoVsock)?;
            if let Some(path) = &wanted.uds_path {
                vsock.uds_path.clone_from(path);
            }
            vsock.guest_cid = wanted.guest_cid.unwrap_or(vsock.guest_cid);
        }
        config.validate()?;
        Ok(config)
    }

    /// Whether a snapshot can be loaded into a VM with this configuration.
    ///
    /// # Errors
    /// [`OverrideError::Configured`].
    pub fn has_outputs_only(&self) -> Result<(), OverrideError> {
        if self.outputs_in(Self::default()) == *self { Ok(()) } else { Err(OverrideError::Configured) }
    }

    /// `config` with this one's outputs.
    fn outputs_in(&self, config: Self) -> Self {
        let (metrics, logger, serial) = (self.metrics.clone(), self.logger.clone(), self.serial.clone());
        Self { metrics, logger, serial, ..config }
    }

    fn override_drives(&mut self, request: &LoadSnapshot) -> Result<(), OverrideError> {
        for wanted in &request.drive_overrides {
            let known = list(self.drives.iter().map(|drive| drive.drive_id.as_str()));
            let drive = self.drives.iter_mut().find(|drive| drive.drive_id == wanted.drive_id);
            let missing =
                || OverrideError::NoSuchDevice { kind: "drive", id: wanted.drive_id.clone(), known };
            let drive = drive.ok_or_else(missing)?;
            if wanted.path_on_host.is_some() {
                drive.path_on_host.clone_from(&wanted.path_on_host);
            }
            drive.io_engine = wanted.io_engine.or(drive.io_engine);
        }
        Ok(())
    }

    fn override_nets(&mut self, request: &LoadSnapshot) -> Result<(), OverrideError> {
        for wanted in &request.network_overrides {
            let id = || wanted.iface_id.clone();
            let known = list(self.network_interfaces.iter().map(|net| net.iface_id.as_str()));
            let net = self.network_interfaces.iter_mut().find(|net| net.iface_id == wanted.iface_id);
            let missing = || OverrideError::NoSuchDevice { kind: "network interface", id: id(), known };
            let net = net.ok_or_else(missing)?;
            if let Some(tap) = &wanted.host_dev_name {
                if net.user.is_some() {
                    return Err(OverrideError::OtherNet { id: id(), is: "passt", asked: "a tap" });
                }
                net.host_dev_name = Some(tap.clone());
            }
            if let Some(publish) = &wanted.publish {
                let no_passt =
                    || OverrideError::OtherNet { id: id(), is: "a tap", asked: "ports to publish" };
                net.user.as_mut().ok_or_else(no_passt)?.publish.clone_from(publish);
            }
            if wanted.guest_mac.is_some() {
                net.guest_mac = wanted.guest_mac;
            }
        }
        Ok(())
    }
}

fn list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let ids: Vec<&str> = ids.collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &serde_json::Value) -> VmConfig {
        VmConfig::from_json(&json.to_string()).unwrap()
    }

    #[test]
    fn every_path_that_a_restored_vm_uses_is_from_the_root() {
        let relative = serde_json::json!({
            "boot-source": {"kernel_image_path": "vmlinux", "initrd_path": "boot/initrd"},
            "drives": [
                {"drive_id": "a", "path_on_host": "a.img", "is_root_device": true},
                {"drive_id": "b", "socket": "b.sock", "is_root_device": false},
            ],
            "vsock": {"guest_cid": 3, "uds_path": "v.sock"},
            "logger": {"log_path": "log"},
            "metrics": {"metrics_path": "metrics"},
            "serial": {"serial_out_path": "serial"},
        });
        let folder = std::env::current_dir().unwrap();
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let wanted = serde_json::json!({
            "boot-source": {"kernel_image_path": at("vmlinux"), "initrd_path": at("boot/initrd")},
            "drives": [
                {"drive_id": "a", "path_on_host": at("a.img"), "is_root_device": true},
                {"drive_id": "b", "socket": at("b.sock"), "is_root_device": false},
            ],
            "vsock": {"guest_cid": 3, "uds_path": at("v.sock")},
            "logger": {"log_path": "log"},
            "metrics": {"metrics_path": "metrics"},
            "serial": {"serial_out_path": "serial"},
        });
        assert_eq!(config(&relative).from_the_root().unwrap(), config(&wanted));
    }
}
