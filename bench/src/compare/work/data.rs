//! What instances write files to: the same kind of place for all, in the folder of the comparison.
//!
//! A process and a container write to a folder of the host. A VM writes to a disk of its own, an ext4 image beside that folder,
//! all of whose blocks the host has, so that no block is looked for twice.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use crate::compare::stage::{self, Stage};
use crate::compare::task::DATA;
use crate::results::Kind;

use super::figure::Source;

/// The word that has the built-in program mount a disk.
pub(super) const MOUNT: &str = "data";

/// The second disk of a VM.
const DISK: &str = "/dev/vdb";

/// Size of an image: twice the file, and the journal.
const IMAGE_BYTES: usize = 40 << 20;

/// What an instance writes to. It is removed with this.
pub(super) struct Data {
    path: PathBuf,
    kind: Kind,
}

impl Data {
    /// Makes one for the contender `name`.
    ///
    /// # Errors
    /// There is no room, or no mke2fs for an image.
    pub(super) fn new(stage: &Stage, kind: Kind, name: &str) -> anyhow::Result<Self> {
        let data = Self { path: stage.path(&format!("data-{name}")), kind };
        if kind == Kind::MicroVm {
            data.make_image()
        } else {
            fs::create_dir(&data.path).map_err(Into::into)
        }
        .with_context(|| data.path.display().to_string())?;
        Ok(data)
    }

    fn make_image(&self) -> anyhow::Result<()> {
        let mut file = File::create(&self.path)?;
        file.write_all(&vec![0; IMAGE_BYTES])?;
        file.sync_all()?;
        let mut command = stage::mke2fs()?;
        // Blocks that the host has are kept, and nothing is left for the guest's kernel to do while it is measured.
        command.args(["-b", "4096", "-E", "root_owner=0:0,nodiscard,lazy_itable_init=0,lazy_journal_init=0"]);
        stage::format(command, &self.path)
    }

    /// What an order brings.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The words that have the built-in program use it.
    pub(super) fn words(&self) -> Vec<String> {
        let files = |folder: &Path| format!("{}={}", Source::Files.word(), folder.display());
        match self.kind {
            Kind::Process => vec![files(&self.path)],
            Kind::Container | Kind::Sandbox => vec![files(Path::new(DATA))],
            Kind::MicroVm => vec![format!("{MOUNT}={DISK}"), files(Path::new(DATA))],
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _: io::Result<()> = match self.kind {
            Kind::MicroVm => fs::remove_file(&self.path),
            _ => fs::remove_dir_all(&self.path),
        };
    }
}

/// What a reader must know of the place.
pub(super) fn caution(stage: &Stage) -> Option<String> {
    let folder = stage.path("");
    let caution = match statfs(&folder).ok()?.filesystem_type() {
        TMPFS_MAGIC => "which is in memory, where fsync costs nothing",
        OVERLAYFS_SUPER_MAGIC => {
            "which is an overlay, where fsync costs nothing if its upper layer is in memory"
        }
        _ => return None,
    };
    Some(format!("Files were written to {}, {caution}; --folder names another place.", folder.display()))
}
