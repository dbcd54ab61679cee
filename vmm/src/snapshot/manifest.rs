//! `manifest.json`: what a person or a script wants to know of a snapshot.
//!
//! Restoring does not read it. `rvmm snapshot verify` takes the digests from it. Paths that are not UTF-8 have a replacement
//! character where they are not.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::digest::hex;
use super::error::SnapshotError;
use super::regular;
use super::state::StateV2;
use crate::config::VmConfig;
use crate::json;
use crate::timestamp::Timestamp;

/// The longest that is read, in bytes: thirty devices, each with the longest path that there can be, take about an eighth.
const MAX_SIZE: u64 = 1 << 20;

/// The processor that a snapshot was made on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Who made it, as CPUID leaf 0 says.
    #[serde(default)]
    pub vendor: String,
    /// What its maker calls it.
    #[serde(default)]
    pub model: String,
    /// What the guest was told that it has.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Guest memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What the guest has; the length of the file.
    pub size: u64,
    /// Pages in the file that are not all zeroes.
    pub in_use: u64,
    /// Of a diff, the pages that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<u64>,
    /// Digest of the file, as [`super::digest`] says.
    pub pages_sha256: String,
}

/// The file `state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its length in bytes.
    pub size: u64,
    /// Its digest, as `sha256sum` says.
    pub sha256: String,
}

/// A device of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it is: the key of the configuration.
    pub kind: String,
    /// Which of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it leads to on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What else of it concerns the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The snapshot that a diff is on top of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its id.
    pub id: String,
    /// Its folder, from the root.
    pub path: String,
    /// The digest of its `state`, as `sha256sum` says.
    pub state_sha256: String,
}

/// All of it. Keys that rvmm does not know are left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: u16,
    /// The snapshot's id.
    pub id: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The rvmm that made it.
    pub rvmm_version: String,
    /// The kernel that the guest booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Its initrd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// vCPUs of the guest.
    pub vcpus: u32,
    /// Its memory, and the file `memory`.
    pub memory: Memory,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// The host's processor.
    #[serde(default)]
    pub cpu: Cpu,
    /// The file `state`.
    pub state: State,
    /// Of a diff, what it is on top of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// For how many microseconds the guest stood still, unless it was paused before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_us: Option<u64>,
}

impl Manifest {
    /// The manifest in the folder `dir`.
    ///
    /// # Errors
    /// [`SnapshotError`] when it cannot be read, or is not JSON of this form.
    pub fn read(dir: &Path) -> Result<Self, SnapshotError> {
        let path = dir.join("manifest.json");
        let text = regular::read(&path, MAX_SIZE)?;
        json::read(&text).map_err(|error| SnapshotError::broken(&path, error.to_string()))
    }

    /// What `state` and its configuration say. The digests are not in it yet.
    pub(super) fn of(state: &StateV2, config: &VmConfig, cpu: Cpu) -> Self {
        let source = config.boot_source.as_ref();
        let path = |path: &Path| path.display().to_string();
        Self {
            format: super::seal::FORMAT_VERSION,
            id: hex(&state.id),
            created: Timestamp(UNIX_EPOCH + Duration::from_nanos(state.created)).to_string(),
            rvmm_version: state.rvmm_version.clone(),
            kernel: source.map(|source| path(&source.kernel_image_path)),
            initrd: source.and_then(|source| source.initrd_path.as_deref()).map(path),
            vcpus: config.machine_config.vcpu_count,
            memory: Memory {
                size: state.memory.len(),
                changed: state.memory.pages.as_ref().map(|_| state.memory.pages().bytes()),
                ..Memory::default()
            },
            devices: devices(config),
            cpu,
            state: State::default(),
            base: state.base.as_ref().map(|base| Base {
                id: hex(&base.id),
                path: path(base.absolute()),
                state_sha256: String::new(),
            }),
            pause_us: None,
        }
    }
}

/// The virtio devices of `config`, and what they lead to.
fn devices(config: &VmConfig) -> Vec<Device> {
    let device = |kind: &str, id: Option<&String>, host: Option<String>| Device {
        kind: kind.to_owned(),
        id: id.cloned(),
        host,
        options: Vec::new(),
    };
    let mut devices: Vec<_> = config
        .drives_in_order()
        .map(|drive| {
            let host = drive.path_on_host.as_ref().map(|path| path.display().to_string());
            let options = if drive.is_read_only { vec!["read-only".to_owned()] } else { Vec::new() };
            Device { options, ..device("drives", Some(&drive.drive_id), host) }
        })
        .collect();
    devices.extend(config.network_interfaces.iter().map(|interface| {
        let net = device("network-interfaces", Some(&interface.iface_id), interface.host_dev_name.clone());
        let user = interface.user.iter();
        let options = user.flat_map(|user| {
            let loopback = user.host_loopback.then(|| "the host's loopback".to_owned());
            let ports = user.publish.iter().map(|port| format!("publish={port}"));
            std::iter::once("passt".to_owned()).chain(loopback).chain(ports)
        });
        Device { options: options.collect(), ..net }
    }));
    let vsock = config.vsock.as_ref();
    devices.extend(vsock.map(|vsock| device("vsock", None, Some(vsock.uds_path.display().to_string()))));
    devices.extend(config.balloon.as_ref().map(|_| device("balloon", None, None)));
    devices.extend(config.entropy.as_ref().map(|_| device("entropy", None, None)));
    devices.extend(config.console.as_ref().map(|_| device("console", None, None)));
    devices
}
