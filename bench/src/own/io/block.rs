//! Disks: direct I/O in the guest, on a disk whose image is in the host's memory.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::HostSide;
use super::session::MEASURE;
use super::vmms::Devices;
use crate::args::IoArgs;

/// Of the disk: more than guests and caches of processors hold.
const SIZE_MIB: usize = 512;

/// The guest's second disk.
pub(crate) struct Disk {
    image: PathBuf,
}

impl Disk {
    /// An image that is all there: pages that nobody has written would be read as zeroes, for less.
    ///
    /// # Errors
    /// It cannot be written: `folder` has no room, most likely.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let image = folder.join("disk.img");
        let write = || {
            let mut file = File::create(&image)?;
            let chunk = vec![0x5a; 1 << 20];
            (0..SIZE_MIB).try_for_each(|_| file.write_all(&chunk))
        };
        write().with_context(|| format!("a disk of {SIZE_MIB} MiB, {}", image.display()))?;
        Ok(Self { image })
    }
}

impl HostSide for Disk {
    fn devices(&self) -> Devices {
        Devices { disk: Some(self.image.clone()), ..Devices::default() }
    }

    fn script(&self, args: &IoArgs) -> String {
        let seconds = args.seconds;
        format!(
            "{MEASURE}b=/dev/vdb; \
             marked random-1 blockload $b read random 4k 1 {seconds}; \
             marked random-32 blockload $b read random 4k 32 {seconds}; \
             marked read blockload $b read sequential 1m 4 {seconds}; \
             marked write blockload $b write sequential 1m 4 {seconds}"
        )
    }
}
