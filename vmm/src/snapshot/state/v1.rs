//! Format 1, which rvmm wrote before disks were part of a snapshot. It is read only.

use serde::{Deserialize, Serialize};

use super::{BaseV1, DiskV2, Id, MAX_LISTED, MAX_RANGES, MemoryV2, RegionV1, SectionV2, StateV2};
use crate::snapshot::bounded;

/// The body of a `state` file of format 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::snapshot) struct StateV1 {
    pub id: Id,
    pub rvmm_version: String,
    pub created: u64,
    pub config: String,
    pub memory: MemoryV1,
    pub base: Option<BaseV1>,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LISTED>")]
    pub disks: Vec<DiskV1>,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LISTED>")]
    pub sections: Vec<SectionV1>,
}

/// What is in the file `memory`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::snapshot) struct MemoryV1 {
    pub page_size: u64,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LISTED>")]
    pub regions: Vec<RegionV1>,
    #[serde(deserialize_with = "bounded::optional_list::<_, _, MAX_RANGES>")]
    pub pages: Option<Vec<(u64, u64)>>,
}

/// A drive as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::snapshot) struct DiskV1 {
    pub drive_id: String,
    pub size: u64,
    pub modified: i64,
    pub is_read_only: bool,
    pub device: u64,
    pub inode: u64,
}

/// The state of one part of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::snapshot) struct SectionV1 {
    pub name: String,
    pub version: u16,
    #[serde(with = "bounded::bytes")]
    pub bytes: Vec<u8>,
}

impl From<StateV1> for StateV2 {
    fn from(state: StateV1) -> Self {
        let StateV1 { id, rvmm_version, created, config, memory, base, disks, sections } = state;
        let MemoryV1 { page_size, regions, pages } = memory;
        let disks = disks.into_iter().map(|disk| {
            let DiskV1 { drive_id, size, modified, is_read_only, device, inode } = disk;
            DiskV2 { drive_id, size, modified, is_read_only, device, inode, included: None }
        });
        let sections = sections.into_iter().map(|section| {
            let SectionV1 { name, version, bytes } = section;
            SectionV2 { name, version, is_required: true, bytes }
        });
        Self {
            id,
            rvmm_version,
            created,
            config,
            memory: MemoryV2 { page_size, regions, pages, is_marked: false },
            base,
            disks: disks.collect(),
            sections: sections.collect(),
        }
    }
}

#[cfg(test)]
impl StateV1 {
    /// The file that an rvmm with format 1 would have written of `state`.
    pub(in crate::snapshot) fn file_of(state: &StateV2) -> Vec<u8> {
        let StateV2 { id, rvmm_version, created, config, memory, base, disks, sections } = state.clone();
        let MemoryV2 { page_size, regions, pages, is_marked: _ } = memory;
        let disks = disks.into_iter().map(|disk| {
            let DiskV2 { drive_id, size, modified, is_read_only, device, inode, included: _ } = disk;
            DiskV1 { drive_id, size, modified, is_read_only, device, inode }
        });
        let sections = sections.into_iter().map(|section| {
            let SectionV2 { name, version, is_required: _, bytes } = section;
            SectionV1 { name, version, bytes }
        });
        let state = Self {
            id,
            rvmm_version,
            created,
            config,
            memory: MemoryV1 { page_size, regions, pages },
            base,
            disks: disks.collect(),
            sections: sections.collect(),
        };
        crate::snapshot::seal::seal_as(1, 62, &postcard::to_stdvec(&state).unwrap()).0
    }
}
