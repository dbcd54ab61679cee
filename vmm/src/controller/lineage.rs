//! The snapshots that a VM came from and wrote: what its next diff is on top of, and which files a new snapshot must not
//! replace.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use devices::same_file;

use super::snapshot::CreateError;
use crate::config::{CreateSnapshot, SnapshotType};
use crate::memory::DirtyPages;
use crate::snapshot::{BaseV1, Chain, Folder, MAX_DEPTH, SnapshotError};

/// What is known of the VM's last snapshot, for diffs.
#[derive(Default)]
pub(super) struct Lineage {
    last: Option<BaseV1>,
    /// Pages that were written since it and that KVM's log no longer has: those of a snapshot that failed.
    unsaved: DirtyPages,
}

/// What a diff is on top of.
pub(super) enum Base {
    /// A snapshot that stays.
    Below(BaseV1),
    /// A snapshot whose memory file the diff is merged into, as Firecracker's clients ask for.
    Replaced(Box<Folder>),
}

/// The files that the snapshots of `folders` consist of: where each is, and which file that is.
fn files<'a>(folders: impl Iterator<Item = &'a Folder>) -> Vec<(PathBuf, Metadata)> {
    let paths = folders.flat_map(|folder| [folder.state_path(), folder.memory_path.clone()]);
    paths.filter_map(|path| path.metadata().ok().map(|metadata| (path, metadata))).collect()
}

/// Refuses to replace files that are needed: those below the upper snapshot of `chain` always, and its own if the new one is
/// on top of it.
fn check_targets(request: &CreateSnapshot, chain: &Chain, needs_top: bool) -> Result<(), CreateError> {
    let mut needed = files(chain.below().iter());
    if needs_top {
        needed.extend(files(std::iter::once(chain.top())));
    }
    for (target, file) in existing_targets(request) {
        if let Some((needed, _)) = needed.iter().find(|(_, needed)| same_file(needed, &file)) {
            return Err(CreateError::NeededFile { path: target.to_owned(), needed: needed.clone() });
        }
    }
    Ok(())
}

/// The files that the snapshot of `request` would replace.
fn existing_targets(request: &CreateSnapshot) -> impl Iterator<Item = (&Path, Metadata)> {
    let targets = request.mem_file_path.iter().chain([&request.snapshot_path]);
    targets.filter_map(|target| Some((target.as_path(), target.metadata().ok()?)))
}

impl Lineage {
    /// A VM whose last snapshot is the upper one of `chain`, and that has not run since.
    ///
    /// # Errors
    /// The current folder is gone.
    pub(super) fn on(chain: &Chain) -> Result<Self, SnapshotError> {
        Ok(Self { last: Some(chain.top().as_base()?), unsaved: DirtyPages::default() })
    }

    /// The VM has written the snapshot that is the upper one of `chain`.
    pub(super) fn follow(&mut self, chain: &Chain) -> Result<(), SnapshotError> {
        self.last = Some(chain.top().as_base()?);
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
            // Of a chain that is not whole any more, nothing can be lost.
            if existing_targets(request).next().is_some()
                && let Some(Ok(chain)) = self.last.as_ref().map(open)
            {
                check_targets(request, &chain, false)?;
            }
            return Ok(None);
        }
        if !is_tracking {
            return Err(CreateError::NotTracked);
        }
        let Some(last) = &self.last else {
            // As Firecracker has it: the first diff of a client has all pages that were ever written.
            let is_firecrackers = request.mem_file_path.is_some() && request.base.is_none();
            return if is_firecrackers { Ok(None) } else { Err(CreateError::NoBase) };
        };
        if let Some(asked) = &request.base
            && Folder::open(asked)?.state.id != last.id
        {
            return Err(CreateError::OtherBase { asked: asked.clone(), last: last.absolute().to_owned() });
        }
        // All that the diff needs is still there, or nobody could restore it.
        let chain = open(last)?;
        let memory = request.mem_file_path.as_deref().and_then(|path| path.metadata().ok());
        let replaces = last
            .memory()
            .zip(memory)
            .is_some_and(|(theirs, ours)| theirs.metadata().is_ok_and(|theirs| same_file(&theirs, &ours)));
        check_targets(request, &chain, !replaces)?;
        if replaces {
            return Ok(Some(Base::Replaced(Box::new(chain.into_top()))));
        }
        if chain.below().len() >= MAX_DEPTH {
            return Err(CreateError::TooManyDiffs);
        }
        Ok(Some(Base::Below(last.clone())))
    }
}

/// Opens the snapshot `last` with all that it needs.
fn open(last: &BaseV1) -> Result<Chain, SnapshotError> {
    Chain::of(last.open()?)
}
