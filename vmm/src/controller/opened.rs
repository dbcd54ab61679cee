//! The files of a snapshot that a VM is to be made from, and where its memory comes from.

use std::io::Write as _;
use std::path::Path;

use devices::GuestMemory;

use super::load::LoadError;
use super::recording::Recording;
use crate::config::{LoadSnapshot, MachineConfig, MemBackend, MemBackendType, VmConfig};
use crate::console;
use crate::memory::{self, MemoryError, Pager, Used};
use crate::seccomp::Filter;
use crate::snapshot::{BaseV1, Chain, Folder, SnapshotError, StateFile, StateV1, working_set};

/// What a request names.
pub(super) struct Opened {
    pub(super) state: StateV1,
    pub(super) config: VmConfig,
    /// What a diff of the VM is on top of; nothing if that is not known.
    pub(super) last: Option<BaseV1>,
    backend: Backend,
}

/// Who has the memory.
enum Backend {
    /// The pages that a VM used earlier are needed soon.
    Files(memory::Source, Vec<Used>),
    Process(std::path::PathBuf),
}

impl Opened {
    /// # Errors
    /// [`LoadError`] names the file that is missing or broken.
    pub(super) fn new(request: &LoadSnapshot) -> Result<Self, LoadError> {
        let LoadSnapshot { snapshot_path, mem_file_path, mem_backend, .. } = request;
        let is_folder = snapshot_path.is_dir();
        let state = if is_folder { &snapshot_path.join("state") } else { snapshot_path };
        let backend = mem_backend.as_ref();
        if let Some(MemBackend { backend_type: MemBackendType::Uffd, backend_path }) = backend {
            return Ok(Self::served(state, snapshot_path, backend_path)?);
        }
        let memory = mem_file_path.as_ref().or(backend.map(|backend| &backend.backend_path));
        let folder = match memory {
            Some(memory) => Folder::open_files(state, memory)?,
            None if snapshot_path.is_file() => {
                return Err(LoadError::NoMemory { path: snapshot_path.clone() });
            }
            None => Folder::open(snapshot_path)?,
        };
        let is_used = folder.in_folder() && !request.prefault && !request.record_working_set;
        let used =
            if is_used { working_set::read(snapshot_path, folder.state.memory.len())? } else { Vec::new() };
        let chain = Chain::of(folder)?;
        let source = chain.source();
        let top = chain.into_top();
        let last = Some(top.as_base()?);
        let backend = Backend::Files(source, used);
        Ok(Self { state: top.state, config: top.config, last, backend })
    }

    fn served(state: &Path, folder: &Path, socket: &Path) -> Result<Self, SnapshotError> {
        let StateFile { state, config, seal } = StateFile::read(state)?;
        // The memory may be on another host.
        let last = Folder::open(folder).ok().filter(|folder| folder.seal == seal);
        let last = last.map(|folder| folder.as_base()).transpose()?;
        Ok(Self { state, config, last, backend: Backend::Process(socket.to_owned()) })
    }

    /// Where it is to be written which pages the VM uses, if `request` has that.
    ///
    /// # Errors
    /// [`LoadError`] when that cannot be.
    pub(super) fn recording(
        &self,
        request: &LoadSnapshot,
        machine: &MachineConfig,
    ) -> Result<Option<Recording>, LoadError> {
        let source = match &self.backend {
            Backend::Files(source, _) => Some(source),
            Backend::Process(_) => None,
        };
        request.record_working_set.then(|| Recording::new(request, machine, source)).transpose()
    }

    /// Guest memory, and what keeps it served if another process does. `filter` is for the threads that help.
    ///
    /// # Errors
    /// [`MemoryError`] when the host has no room, a file cannot be read, or nobody serves.
    pub(super) fn memory(
        &self,
        machine: &MachineConfig,
        filter: Option<&Filter>,
    ) -> Result<(GuestMemory, Option<Pager>), MemoryError> {
        let MachineConfig { mem_size_mib, huge_pages, track_dirty_pages, .. } = *machine;
        match &self.backend {
            Backend::Files(source, used) => {
                memory::restore_used(mem_size_mib, source, huge_pages, track_dirty_pages, used, filter)
                    .map(|memory| (memory, None))
            }
            Backend::Process(socket) => {
                memory::serve_by(mem_size_mib, socket, huge_pages, track_dirty_pages, filter, give_up)
                    .map(|(memory, pager)| (memory, Some(pager)))
            }
        }
    }
}

/// Ends the process while its main thread waits for a page that never comes.
fn give_up(message: &str) {
    console::restore_terminal();
    // Nobody is left to tell when that fails.
    let _ = writeln!(std::io::stderr(), "rvmm: error: {message}");
    std::process::exit(1);
}
