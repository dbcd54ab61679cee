//! Which pages a restored VM used, written to the folder of its snapshot when it ends.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use devices::GuestMemory;

use super::load::LoadError;
use crate::config::{LoadSnapshot, MachineConfig, MemBackend, MemBackendType};
use crate::memory::{HugePages, Source, Used};
use crate::snapshot::{Pages, SnapshotError, working_set};

/// What is recorded, and where.
pub(super) struct Recording {
    /// As the user knows it.
    folder: PathBuf,
    /// As it was when the VM was made, wherever it is moved.
    opened: File,
    /// What rvmm copies to memory itself.
    copied: Pages,
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
            "a memory file that is mapped; the process that serves the memory can record what is asked of it (rvmm serve-memory --record)"
        } else if request.mem_file_path.is_some() || backend.is_some() || request.snapshot_path.is_file() {
            "the folder of a snapshot; name that, and no file of memory"
        } else if request.prefault {
            "a VM that reads its memory when it needs it; leave out prefault"
        } else if machine.huge_pages == HugePages::Hugetlb2M {
            "memory in pages of 4 KiB: in pages of hugetlbfs all of it is there from the start"
        } else {
            return Ok(());
        }))
    }

    /// One to `folder`, of memory that comes from `source`.
    ///
    /// # Errors
    /// [`SnapshotError`] when nothing can be written there.
    pub(super) fn of(folder: &Path, source: &Source) -> Result<Self, SnapshotError> {
        working_set::is_writable(folder)?;
        let opened = working_set::open_folder(folder)?;
        let copied = source.overlays.iter().flat_map(|overlay| overlay.pages.iter().cloned());
        Ok(Self { folder: folder.to_owned(), opened, copied: Pages::of(copied.collect()) })
    }

    /// Writes what was used of `memory`.
    pub(super) fn write(self, memory: &GuestMemory) {
        let Self { folder, opened, copied } = self;
        let path = folder.join(working_set::FILE);
        let opened = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let recorded = working_set::of(memory, &copied).and_then(|used| {
            working_set::write(Path::new(&opened), &used)?;
            Ok(used)
        });
        match recorded {
            Ok(used) => {
                let kib = |written| {
                    let used = used.iter().filter(|used| used.written == written);
                    used.map(Used::len).sum::<u64>() >> 10
                };
                log::info!("{}: {} KiB written, {} KiB read", path.display(), kib(true), kib(false));
            }
            Err(error) => {
                log::error!("cannot write {}: {error}; what the VM used is not recorded", path.display());
            }
        }
    }
}
