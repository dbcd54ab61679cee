//! Which pages a restored VM used, written to the folder of its snapshot when it ends.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use devices::GuestMemory;

use super::load::LoadError;
use crate::config::{LoadSnapshot, MachineConfig};
use crate::memory::{HugePages, Source, Used};
use crate::snapshot::{Pages, working_set};

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
    /// What `request` asks for, of memory that comes from `source`, if not from another process.
    ///
    /// # Errors
    /// [`LoadError`] where it has no folder for it, or none that can be written to, or `machine` has every page used at once.
    pub(super) fn new(
        request: &LoadSnapshot,
        machine: &MachineConfig,
        source: Option<&Source>,
    ) -> Result<Self, LoadError> {
        let needs = |what| Err(LoadError::Recording(what));
        let LoadSnapshot { snapshot_path: folder, mem_file_path, mem_backend, prefault, .. } = request;
        let Some(source) = source else {
            return needs(
                "a memory file that is mapped; the process that serves the memory can record what is asked of it (rvmm serve-memory --record)",
            );
        };
        if mem_file_path.is_some() || mem_backend.is_some() {
            return needs("the folder of a snapshot; name that, and no file of memory");
        }
        if *prefault {
            return needs("a VM that reads its memory when it needs it; leave out prefault");
        }
        if machine.huge_pages == HugePages::Hugetlb2M {
            return needs(
                "memory in pages of 4 KiB: in pages of hugetlbfs all of it is there from the start",
            );
        }
        working_set::is_writable(folder)?;
        let copied = source.overlays.iter().flat_map(|overlay| overlay.pages.iter().cloned()).collect();
        let opened = working_set::open_folder(folder)?;
        Ok(Self { folder: folder.clone(), opened, copied: Pages::of(copied) })
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
