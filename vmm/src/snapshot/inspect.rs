//! What is in a snapshot, for people and scripts.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::error::SnapshotError;
use super::folder::{Chain, Folder};
use super::manifest::{Cpu, Manifest, Memory};
use super::working_set;
use crate::timestamp::Timestamp;

/// A part of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Which part.
    pub name: String,
    /// Version of its type.
    pub version: u16,
    /// Bytes.
    pub size: u64,
}

/// A drive as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Which drive.
    pub drive_id: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written to, RFC 3339; not of a block device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// The guest cannot write.
    pub is_read_only: bool,
    /// The file in the folder that has its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub included: Option<String>,
}

/// A snapshot that another is on top of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Below {
    /// Its folder, or its state file.
    pub path: String,
    /// Its memory file, where that is not in a folder with the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

impl Below {
    fn new(path: &Path, memory: Option<&Path>) -> Self {
        let text = |path: &Path| path.display().to_string();
        Self { path: text(path), memory: memory.map(text) }
    }

    fn of(folder: &Folder) -> Self {
        Self::new(&folder.path, (!folder.in_folder()).then_some(&folder.memory_path))
    }
}

/// What there is to say of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What the state says, in the form of the manifest; digests, processor and pause are the manifest's.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// Bytes that the memory file takes on the disk.
    pub memory_on_disk: u64,
    /// The drives.
    pub disks: Vec<Disk>,
    /// The parts of the state.
    pub sections: Vec<Section>,
    /// What it is on top of, the next one first.
    pub on_top_of: Vec<Below>,
    /// Why it cannot be restored, as far as can be told without reading memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is in the snapshot in the folder `dir`. A base that is missing or changed is a [`Inspection::problem`].
///
/// # Errors
/// [`SnapshotError`] when there is no snapshot, or it is broken itself.
pub fn inspect(dir: &Path) -> Result<Inspection, SnapshotError> {
    let folder = Folder::open(dir)?;
    // What is restored is what the state says; the manifest is believed what nothing else tells.
    let said = Manifest::of(&folder.state, &folder.config, Cpu::default());
    let (manifest, mut problem) = match Manifest::read(dir) {
        Ok(Manifest { cpu, memory, state, pause_us, devices, kernel, initrd, .. }) => {
            let differs = (&devices, &kernel, &initrd) != (&said.devices, &said.kernel, &said.initrd);
            let problem = "manifest.json has other devices or files than the state, which is what counts";
            let memory = Memory { in_use: memory.in_use, pages_sha256: memory.pages_sha256, ..said.memory };
            (Manifest { memory, cpu, state, pause_us, ..said }, differs.then(|| problem.to_owned()))
        }
        Err(error) => (said, Some(error.to_string())),
    };
    if let Err(error) = working_set::read(dir, folder.state.memory.len()) {
        problem = Some(error.to_string());
    }
    let on_disk = folder.memory.metadata().map_err(|error| SnapshotError::io("read", dir, error))?;
    let disks = folder.state.disks.iter().map(|disk| Disk {
        drive_id: disk.drive_id.clone(),
        size: disk.size,
        modified: u64::try_from(disk.modified)
            .ok()
            .filter(|modified| *modified > 0)
            .map(|modified| Timestamp(UNIX_EPOCH + Duration::from_nanos(modified)).to_string()),
        is_read_only: disk.is_read_only,
        included: disk.included.clone(),
    });
    let sections = folder.state.sections.iter().map(|section| Section {
        name: section.name.clone(),
        version: section.version,
        size: section.bytes.len() as u64,
    });
    let (disks, sections) = (disks.collect(), sections.collect());
    let base = folder.state.base.clone();
    let on_top_of = match Chain::of(folder) {
        Ok(chain) => chain.below().iter().map(Below::of).collect(),
        Err(error) => {
            problem = Some(error.to_string());
            base.iter().map(|base| Below::new(base.absolute(), base.memory())).collect()
        }
    };
    let memory_on_disk = on_disk.blocks().saturating_mul(512);
    Ok(Inspection { manifest, memory_on_disk, disks, sections, on_top_of, problem })
}
