//! Disks: direct I/O in the guest, on a disk whose image is in the host's memory.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::HostSide;
use crate::options::Options;
use crate::session::MEASURE;
use crate::vmms::Devices;

/// Of the disk: more than guests and caches of processors hold.
const SIZE_MIB: usize = 512;

/// The guest's second disk.
pub(crate) struct Disk {
    image: PathBuf,
}

impl Disk {
    /// An image that is all there: pages that nobody has written would be read as zeroes, for less.
    pub(crate) fn new(folder: &Path) -> Self {
        let image = folder.join("disk.img");
        let mut file = File::create(&image).unwrap();
        let chunk = vec![0x5a; 1 << 20];
        for _ in 0..SIZE_MIB {
            file.write_all(&chunk).unwrap();
        }
        Self { image }
    }
}

impl HostSide for Disk {
    fn devices(&self) -> Devices {
        Devices { disk: Some(self.image.clone()), ..Devices::default() }
    }

    fn script(&self, options: &Options) -> String {
        let seconds = options.seconds;
        format!(
            "{MEASURE}b=/dev/vdb; \
             marked random-1 blockload $b read random 4k 1 {seconds}; \
             marked random-32 blockload $b read random 4k 32 {seconds}; \
             marked read blockload $b read sequential 1m 4 {seconds}; \
             marked write blockload $b write sequential 1m 4 {seconds}"
        )
    }
}
