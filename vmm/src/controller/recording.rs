//! Which pages a restored VM used, written to the folder of its snapshot when it ends.

use std::path::{Path, PathBuf};

use devices::GuestMemory;

use super::load::LoadError;
use crate::config::{LoadSnapshot, MachineConfig, MemBackend, MemBackendType};
use crate::memory::HugePages;
use crate::snapshot::working_set;

/// What is recorded, and where.
pub(super) struct Recording {
    path: PathBuf,
}

impl Recording {
    /// # Errors
    /// [`LoadError::Recording`] where `request` has no folder for it, or `machine` has every page used at once.
    pub(super) fn check(request: &LoadSnapshot, machine: &MachineConfig) -> Result<(), LoadError> {
        if !request.record_working_set {
            return Ok(());
        }
        let backend = request.mem_backend.as_ref();
        let is_served =
            backend.is_some_and(|MemBackend { backend_type, .. }| *backend_type == MemBackendType::Uffd);
        Err(LoadError::Recording(if is_served {
            "a snapshot whose memory file is mapped; of one that another process serves, that process does it (rvmm serve-memory --record)"
        } else if request.mem_file_path.is_some() || backend.is_some() || request.snapshot_path.is_file() {
            "a snapshot in one folder; name that as the snapshot, and no other file of memory"
        } else if request.prefault {
            "a VM that reads its memory when it needs it; leave out prefault"
        } else if machine.huge_pages == HugePages::Hugetlb2M {
            "memory in pages of 4 KiB; hugetlbfs has all of it there from the start"
        } else {
            return Ok(());
        }))
    }

    /// One to the file `path`, wherever this process goes.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) }
    }

    /// Writes what was used of `memory`.
    pub(super) fn write(self, memory: &GuestMemory) {
        let path = self.path;
        let recorded = working_set::of(memory).and_then(|used| {
            working_set::write(&path, &used)?;
            Ok(used)
        });
        match recorded {
            Ok(used) => {
                let kib = |written| {
                    let used = used.iter().filter(|used| used.written == written);
                    used.map(|used| used.range.end - used.range.start).sum::<u64>() >> 10
                };
                log::info!("{}: {} KiB written, {} KiB read", path.display(), kib(true), kib(false));
            }
            Err(error) => {
                log::error!("cannot write {}: {error}; what the VM used is not recorded", path.display());
            }
        }
    }
}
