//! The file `working-set` of a snapshot: the pages that a guest used that was restored from it. The next ones use the same,
//! and have them sooner when they are brought in before they are asked for.
//!
//! It is a hint: nothing is wrong when it is missing, and one that cannot be read is left alone.

use serde::{Deserialize, Serialize};

use super::bounded;
use super::error::SnapshotError;
use super::folder::Folder;
use super::pages::Pages;
use super::pair::PartialFile;
use super::seal;
use super::state::{Id, MAX_RANGES};
use super::{digest, regular};

/// Ranges that are recorded: more are coalesced, so that bringing them in takes few system calls.
const MAX_RECORDED: usize = 4096;
/// The file's name.
const WORKING_SET: &str = "working-set";

/// The body of the file.
#[derive(Serialize, Deserialize)]
struct WorkingSetV1 {
    /// The snapshot that it is of.
    id: Id,
    /// The pages, first and count.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_RANGES>")]
    pages: Vec<(u64, u64)>,
}

/// Records `pages` as the working set of the snapshot in `folder`. One that is there is replaced.
///
/// # Errors
/// [`SnapshotError`] when that cannot be written to; another clone that records at the same time is one.
pub fn write_working_set(folder: &Folder, pages: Pages) -> Result<(), SnapshotError> {
    let path = folder.path.join(WORKING_SET);
    let set = WorkingSetV1 { id: folder.state.id, pages: pages.coalesced(MAX_RECORDED).numbers() };
    let body = postcard::to_stdvec(&set).map_err(|error| SnapshotError::broken(&path, error.to_string()))?;
    let mut file = PartialFile::begin(&path)?;
    file.fill(&seal::seal(seal::WORKING_SET, &body).0)?;
    file.rename()
}

/// The working set of the snapshot in `folder`, if one was recorded.
///
/// # Errors
/// [`SnapshotError`] for a file that is damaged, or of another snapshot.
pub fn read_working_set(folder: &Folder) -> Result<Option<Pages>, SnapshotError> {
    let path = folder.path.join(WORKING_SET);
    let bytes = match regular::read(&path) {
        Err(error) if regular::is_missing(&error) => return Ok(None),
        bytes => bytes?,
    };
    let broken = |message: String| SnapshotError::broken(&path, format!("{message}; remove it"));
    let (body, _) = seal::open(seal::WORKING_SET, &bytes).map_err(|error| broken(error.to_string()))?;
    let set: WorkingSetV1 = postcard::from_bytes(body).map_err(|error| broken(error.to_string()))?;
    if set.id != folder.state.id {
        return Err(broken(format!("is of another snapshot, {}", digest::hex(&set.id))));
    }
    let pages = Pages::checked(&set.pages, folder.state.memory.len());
    pages.map(Some).ok_or_else(|| broken("has pages out of order, or outside of memory".to_owned()))
}
