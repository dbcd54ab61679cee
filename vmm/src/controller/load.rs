//! A VM from a snapshot, in place of one that is configured and started.

use std::panic::resume_unwind;
use std::thread;

use kvm_ioctls::VmFd;

use super::lineage::Lineage;
use super::live::Live;
use super::opened::Opened;
use super::{Controller, ControllerError, Origin};
use crate::config::{LoadSnapshot, OverrideError, VmConfig};
use crate::console::Output;
use crate::kvm::{Elapsed, Host, KvmError};
use crate::memory;
use crate::snapshot::{DiskV2, ImageKind, SnapshotError, StateError, StateV2};
use crate::thread::spawn_maker;
use crate::vcpu::Begin;
use crate::vm::{Saved, Vm, VmError};

/// Why no VM can be made from a snapshot. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The files.
    #[error(transparent)]
    Files(#[from] SnapshotError),
    /// What they say.
    #[error("the snapshot {0}")]
    State(#[from] StateError),
    /// A drive is not what it was.
    #[error(
        "drive \"{id}\": {} {difference}: its file system would be damaged. {included}Give a copy from the time of the snapshot (--disk id={id},path=FILE, drive_overrides){accept}", path.display()
    )]
    ChangedDrive {
        /// Its id.
        id: String,
        /// Its file.
        path: std::path::PathBuf,
        /// How it differs.
        difference: String,
        /// How to take the copy that the snapshot includes, if there is one.
        included: &'static str,
        /// How to take it as it is, or nothing where that cannot be.
        accept: &'static str,
    },
    /// A drive's file.
    #[error("drive \"{id}\": cannot look at {}", path.display())]
    Drive {
        /// Its id.
        id: String,
        /// Its file.
        path: std::path::PathBuf,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
    /// What was to be overridden.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// What the VM uses of memory cannot be told, or there is no place for it.
    #[error("record_working_set (--record) needs {0}")]
    Recording(&'static str),
    /// A state without its memory.
    #[error(
        "{} is a file, and no memory is named: give mem_file_path or mem_backend, or the folder of a snapshot", path.display()
    )]
    NoMemory {
        /// The state.
        path: std::path::PathBuf,
    },
}

/// The best way out for a drive that the snapshot includes.
const INCLUDED: &str = "The snapshot has a copy of it: take that (--disks copy=FOLDER). ";
/// The other way out for a drive that was written to.
const ACCEPT: &str = ", or accept it (--accept-changed-disks, accept_changed_drives)";

impl Controller {
    /// Makes the VM of a snapshot. It is paused, or runs if that was asked for.
    ///
    /// # Errors
    /// [`ControllerError`]; nothing is left behind, and it can be tried again.
    pub(super) fn load_snapshot(&mut self, request: &LoadSnapshot) -> Result<Live, ControllerError> {
        let own = std::mem::take(&mut self.config);
        let made = self.load_over(&own, request);
        if made.is_err() {
            self.config = own;
            // A diff of another VM is not on top of this snapshot.
            self.lineage = Lineage::default();
        }
        made
    }

    fn load_over(&mut self, own: &VmConfig, request: &LoadSnapshot) -> Result<Live, ControllerError> {
        // Of a VM that was configured it does not matter what the files are.
        own.has_outputs_only().map_err(LoadError::from)?;
        // KVM waits for its host's kernel while it makes a VM. The files are read meanwhile.
        thread::scope(|scope| {
            let empty = spawn_maker(scope, empty_vm)
                .map_err(|source| ControllerError::Host { what: "start a thread", source })?;
            self.load_into(own, request, || empty.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// Makes it of the VM that `empty` waits for.
    fn load_into(
        &mut self,
        own: &VmConfig,
        request: &LoadSnapshot,
        empty: impl FnOnce() -> Result<(Host, VmFd), KvmError>,
    ) -> Result<Live, ControllerError> {
        let opened = Opened::new(request)?;
        self.config = own.restored(&opened.config, request).map_err(LoadError::from)?;
        let recording = opened.recording(request, &self.config.machine_config)?;
        if !request.accept_changed_drives {
            check_drives(&self.config, &opened.state, request)?;
        }
        let saved = Saved::read(&opened.state).map_err(LoadError::from)?;
        self.config.boot_timer = saved.has_boot_timer();
        let (host, fd) = empty().map_err(VmError::from)?;
        saved.check(&host, &self.config)?;
        let (memory, pager) = opened.memory(&self.config.machine_config).map_err(VmError::from)?;
        if request.prefault {
            memory::prefault(&memory).map_err(VmError::from)?;
        }
        let elapsed = match request.clock_realtime {
            Some(true) => Elapsed::Counted,
            Some(false) | None => Elapsed::Left,
        };
        self.open_metrics()?;
        self.check_log()?;
        let output = Output::open(&self.options.console, &self.config)?.taped(self.tape.clone());
        let mut vm = Vm::restore(fd, &self.config, &output, &self.metadata, memory, &saved, elapsed)
            .inspect_err(|_| output.abandon())?;
        vm.is_served_by(pager);
        output
            .begin()
            .map_err(|source| ControllerError::Host { what: "empty the console's file", source })?;
        self.lineage = opened.lineage;
        self.origin = Origin::Restored;
        let live = self.start(vm, output, if request.resume_vm { Begin::Running } else { Begin::Paused })?;
        self.recording = recording;
        Ok(live)
    }
}

/// An open `/dev/kvm`, and a VM without anything.
fn empty_vm() -> Result<(Host, VmFd), KvmError> {
    let host = Host::open()?;
    let vm = host.create_vm()?;
    Ok((host, vm))
}

/// A file by the path that the snapshot knows has to be what it was. One that was given in its place is somebody's copy:
/// its size has to fit, which the device looks at.
fn check_drives(config: &VmConfig, state: &StateV2, request: &LoadSnapshot) -> Result<(), LoadError> {
    for drive in &config.drives {
        let id = &drive.drive_id;
        let mut others = request.drive_overrides.iter().filter(|other| other.drive_id == *id);
        if others.any(|other| other.path_on_host.is_some()) {
            continue;
        }
        let was = state
            .disks
            .iter()
            .find(|disk| disk.drive_id == *id)
            .ok_or_else(|| StateError::Inconsistent(format!("it does not say how drive \"{id}\" was")))?;
        let Some(path) = drive.path_on_host.clone() else { continue };
        let now = match DiskV2::look(id, &path, was.is_read_only) {
            Ok(now) => now,
            Err(source) => return Err(LoadError::Drive { id: id.clone(), path, source }),
        };
        let unknown = || {
            let is_unknown = !was.is_read_only && now.kind() == ImageKind::Device;
            is_unknown.then(|| {
                "is a block device, and nothing shows whether it was written to since the snapshot".to_owned()
            })
        };
        if let Some(difference) = was.difference(&now).or_else(unknown) {
            // No guest can be restored with a disk of another size.
            let accept = if now.size == was.size { ACCEPT } else { "" };
            let included = if was.included.is_some() { INCLUDED } else { "" };
            return Err(LoadError::ChangedDrive { id: id.clone(), path, difference, included, accept });
        }
    }
    Ok(())
}
