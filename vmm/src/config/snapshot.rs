//! What is said of a snapshot when one is created or a VM is made from one, by REST or by options.
//!
//! The names are those of the wire; those that are rvmm's own say so.

use std::path::{Path, PathBuf};

use devices::virtio::block::IoEngine;
use devices::virtio::net::{MacAddress, Publish};
use serde::{Deserialize, Serialize};

use crate::memory::HugePages;

/// Which pages of memory a snapshot has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotType {
    /// All of them.
    #[default]
    Full,
    /// Those that were written since the last snapshot of this VM, or the one that it was restored from.
    Diff,
}

/// Whether a snapshot includes the disks that the guest writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IncludeDisks {
    /// It does not: they have to be as they were when it is restored.
    #[default]
    None,
    /// As copies that share their data with the originals, which takes no time; refused where the file system cannot.
    Reflink,
    /// As copies, made while the guest is paused.
    Copy,
}

/// PUT `/snapshot/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// The file for the state of the VM; without `mem_file_path` the folder for all of the snapshot.
    pub snapshot_path: PathBuf,
    /// The file for the VM's memory. It can be left out, which is rvmm's own.
    #[serde(default)]
    pub mem_file_path: Option<PathBuf>,
    /// Which pages.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
    /// rvmm's own: the folder that a diff is on top of, which has to be the VM's last snapshot.
    #[serde(default)]
    pub base: Option<PathBuf>,
    /// rvmm's own: a VM that runs is paused for as long as it takes to copy its state and memory, and goes on by itself.
    #[serde(default)]
    pub live: bool,
    /// rvmm's own: a VM that runs is paused for it, and the VM ends when the snapshot is safe. When there is none it goes on.
    #[serde(default)]
    pub stop: bool,
    /// rvmm's own: whether the folder gets the disks that the guest writes to.
    #[serde(default)]
    pub disks: IncludeDisks,
}

/// How guest memory comes from the snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MemBackendType {
    /// The file is mapped, privately: a page is read when the guest first touches it.
    #[default]
    File,
    /// Another process gives each page when the guest first touches it (userfaultfd).
    Uffd,
}

/// Where guest memory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemBackend {
    /// How.
    pub backend_type: MemBackendType,
    /// The memory file, or the unix socket of the process that serves page faults.
    pub backend_path: PathBuf,
}

/// A drive's file and engine at restore; rvmm's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveOverride {
    /// Which drive.
    pub drive_id: String,
    /// The file that it is; the one that it was when nothing is said.
    #[serde(default)]
    pub path_on_host: Option<PathBuf>,
    /// What does its I/O; what did it when nothing is said.
    #[serde(default)]
    pub io_engine: Option<IoEngine>,
}

/// A network interface's end on the host at restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    /// Which interface.
    pub iface_id: String,
    /// The tap that it is.
    #[serde(default)]
    pub host_dev_name: Option<String>,
    /// rvmm's own: another MAC address for the guest, which sees it when its driver next asks.
    #[serde(default)]
    pub guest_mac: Option<MacAddress>,
    /// rvmm's own, for passt: the ports of the host that lead to the guest, in place of those before.
    #[serde(default)]
    pub publish: Option<Vec<Publish>>,
}

/// The socket device's end on the host at restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    /// The socket for host programs.
    #[serde(default)]
    pub uds_path: Option<PathBuf>,
    /// rvmm's own: another context id for the guest.
    #[serde(default)]
    pub guest_cid: Option<u64>,
}

/// PUT `/snapshot/load`.
#[expect(clippy::struct_excessive_bools, reason = "the wire has them")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSnapshot {
    /// The file with the VM's state, or the folder with all of the snapshot, which is rvmm's own.
    pub snapshot_path: PathBuf,
    /// The file with the VM's memory.
    #[serde(default)]
    pub mem_file_path: Option<PathBuf>,
    /// Where memory comes from, in place of `mem_file_path`.
    #[serde(default)]
    pub mem_backend: Option<MemBackend>,
    /// Keep track of the pages that the guest writes, for diffs.
    #[serde(default, alias = "enable_diff_snapshots")]
    pub track_dirty_pages: bool,
    /// The guest goes on at once.
    #[serde(default)]
    pub resume_vm: bool,
    /// Other ends for network interfaces.
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another end for the socket device.
    #[serde(default)]
    pub vsock_override: Option<VsockOverride>,
    /// The guest's clocks count the time since the snapshot. By default they go on from where they were.
    #[serde(default)]
    pub clock_realtime: Option<bool>,
    /// Which host pages back guest memory; as before when nothing is said.
    #[serde(default)]
    pub huge_pages: Option<HugePages>,
    /// rvmm's own: other files for drives.
    #[serde(default)]
    pub drive_overrides: Vec<DriveOverride>,
    /// rvmm's own: drives may have changed since the snapshot.
    #[serde(default)]
    pub accept_changed_drives: bool,
    /// rvmm's own: read all of memory before the guest goes on.
    #[serde(default)]
    pub prefault: bool,
    /// rvmm's own: write to the folder, when the VM ends, which pages of memory it used, for later restores.
    #[serde(default)]
    pub record_working_set: bool,
}

impl CreateSnapshot {
    /// A snapshot of all of a VM in the folder `dir`.
    pub fn full(dir: &Path) -> Self {
        Self { snapshot_path: dir.to_owned(), ..Self::default() }
    }
}

impl LoadSnapshot {
    /// The snapshot in the folder `dir`, whose guest goes on at once with its clocks right.
    pub fn resumed(dir: &Path) -> Self {
        Self { snapshot_path: dir.to_owned(), resume_vm: true, clock_realtime: Some(true), ..Self::default() }
    }
}
