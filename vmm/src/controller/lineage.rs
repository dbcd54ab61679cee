//! The snapshots that a VM came from and wrote: what its next diff is on top of, and which files a new snapshot must not
//! replace.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use devices::same_file;

use super::snapshot::CreateError;
use crate::config::{CreateSnapshot, SnapshotType};
use crate::memory::DirtyPages;
use crate::snapshot::{BaseV1, Chain, Folder, SnapshotError};

/// What is known of the VM's last snapshot, for diffs.
#[derive(Default)]
pub(super) struct Lineage {
    last: Option<Last>,
    /// Pages that were written since it and that KVM's log no longer has: those of a snapshot that failed.
    unsaved: DirtyPages,
}

/// The VM's last snapshot.
struct Last {
    base: BaseV1,
    /// Its state and memory.
    own: Vec<ChainFile>,
    /// Those of the snapshots that it needs.
    below: Vec<ChainFile>,
}

/// A file that a snapshot consists of. Device and inode recognize it by any name.
struct ChainFile {
    path: PathBuf,
    metadata: Metadata,
}

/// What a diff is on top of.
pub(super) enum Base {
    /// A snapshot that stays.
    Below(BaseV1),
    /// A snapshot whose memory file the diff is merged into, as Firecracker's clients ask for.
    Replaced(Box<Folder>),
}

impl Last {
    fn of(chain: &Chain) -> Result<Self, SnapshotError> {
        let below = chain.below().iter().flat_map(files).collect();
        Ok(Self { base: chain.top().as_base()?, own: files(chain.top()).collect(), below })
    }
}

/// The files of a snapshot that are there.
fn files(folder: &Folder) -> impl Iterator<Item = ChainFile> {
    let file = |path: &Path| Some(ChainFile { path: path.to_owned(), metadata: path.metadata().ok()? });
    [file(&folder.state_path()), file(&folder.memory_path)].into_iter().flatten()
}

fn find<'a>(files: &'a [ChainFile], file: &Metadata) -> Option<&'a Path> {
    files.iter().find(|known| same_file(&known.metadata, file)).map(|known| known.path.as_path())
}

impl Lineage {
    /// A VM whose last snapshot is the upper one of `chain`, and that has not run since.
    ///
    /// # Errors
    /// The current folder is gone.
    pub(super) fn on(chain: &Chain) -> Result<Self, SnapshotError> {
        Ok(Self { last: Some(Last::of(chain)?), unsaved: DirtyPages::default() })
    }

    /// The VM has written the snapshot that is the upper one of `chain`.
    pub(super) fn follow(&mut self, chain: &Chain) -> Result<(), SnapshotError> {
        self.last = Some(Last::of(chain)?);
        Ok(())
    }

    /// A snapshot failed: the pages that it would have had belong to the next one.
    pub(super) fn keep(&mut self, dirty: Option<DirtyPages>) {
        if let Some(dirty) = dirty {
            self.unsaved.add(&dirty);
        }
    }

    /// The pages of failed snapshots.
    pub(super) fn take_unsaved(&mut self) -> DirtyPages {
        std::mem::take(&mut self.unsaved)
    }

    /// What the snapshot of `request` is on top of; `None` for a full one.
    ///
    /// # Errors
    /// [`CreateError`] when there is no base or another than asked for, or when the snapshot would replace a file that it or the
    /// last one needs. Nothing is written.
    pub(super) fn base_for(
        &self,
        request: &CreateSnapshot,
        is_tracking: bool,
    ) -> Result<Option<Base>, CreateError> {
        if request.snapshot_type == SnapshotType::Full {
            if request.base.is_some() {
                return Err(CreateError::BaseOfFull);
            }
            self.check_targets(request, false)?;
            return Ok(None);
        }
        if !is_tracking {
            return Err(CreateError::NotTracked);
        }
        let last = self.last.as_ref().ok_or(CreateError::NoBase)?;
        if let Some(asked) = &request.base
            && Folder::open(asked)?.state.id != last.base.id
        {
            return Err(CreateError::OtherBase {
                asked: asked.clone(),
                last: last.base.absolute().to_owned(),
            });
        }
        let memory = request.mem_file_path.as_deref().and_then(|path| path.metadata().ok());
        let replaces =
            last.base.memory().zip(memory).is_some_and(|(theirs, ours)| {
                theirs.metadata().is_ok_and(|theirs| same_file(&theirs, &ours))
            });
        self.check_targets(request, !replaces)?;
        // All that the diff needs is still there, or nobody could restore it.
        let chain = Chain::of(last.base.open()?)?;
        if !replaces {
            return Ok(Some(Base::Below(last.base.clone())));
        }
        Ok(Some(Base::Replaced(Box::new(chain.into_top()))))
    }

    /// Refuses to replace files that are needed: those below the last snapshot always, and those of the last one if the new
    /// one is on top of it.
    fn check_targets(&self, request: &CreateSnapshot, needs_last: bool) -> Result<(), CreateError> {
        let Some(last) = &self.last else { return Ok(()) };
        for target in request.mem_file_path.iter().chain([&request.snapshot_path]) {
            let Ok(file) = target.metadata() else { continue };
            let needed = find(&last.below, &file).or_else(|| find(&last.own, &file).filter(|_| needs_last));
            if let Some(needed) = needed {
                return Err(CreateError::NeededFile { path: target.clone(), needed: needed.to_owned() });
            }
        }
        Ok(())
    }
}
