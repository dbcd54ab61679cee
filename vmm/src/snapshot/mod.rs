//! Snapshots as they are on the disk: the folder with the files `state`, `memory` and `manifest.json`.
//!
//! | file | |
//! | --- | --- |
//! | `state` | [`seal`]: a header with magic, version and checksum; behind it a [`StateV2`] |
//! | `memory` | guest memory from its lowest address up, without the MMIO gap; pages of zeroes are holes. Of a diff, only the pages that it has |
//! | `manifest.json` | [`manifest`]: for people and scripts, with digests of both |
//! | `disk-ID.img` | what was on the writable drive ID, if the snapshot includes disks |
//! | `working-set` | which pages a restored guest used; only there when that was recorded |
//!
//! A snapshot is written beside its place and renamed ([`Partial`]), so there is a whole one or none. A file that is read may
//! come from anyone: it is bounded, checked, and refused with what is wrong ([`SnapshotError`]). What a section of the state
//! holds is for those to check who know the device.

mod beside;
pub(crate) mod bounded;
pub mod digest;
mod disk;
mod disk_copy;
mod error;
mod folder;
mod inspect;
pub mod manifest;
mod marker;
pub mod memory_file;
mod merge;
mod pagemap;
mod pages;
mod pair;
mod partial;
mod regular;
pub mod seal;
mod state;
#[cfg(test)]
mod tests;
mod touched;
mod verify;
pub mod working_set;

pub use disk::{DiskV2, ImageKind};
pub use disk_copy::{DiskCopyError, copy_sparse, reflink};
pub use error::SnapshotError;
pub use folder::{Chain, Folder, MAX_DEPTH, StateFile};
pub use inspect::{Below, Disk, Inspection, inspect};
pub use manifest::Manifest;
pub use merge::merge;
pub use pages::{PAGE_SIZE, Pages};
pub use pair::PartialPair;
pub use partial::Partial;
pub use state::{BaseV1, Id, MAX_RANGES, MemoryV2, RegionV1, SectionV2, StateError, StateV2};
pub use touched::touched;
pub use verify::{Verified, verify};
