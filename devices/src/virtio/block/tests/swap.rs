//! The file behind the disk is swapped while the guest runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use virtio_bindings::virtio_blk::VIRTIO_BLK_T_FLUSH;
use virtio_bindings::virtio_mmio as mmio;

use super::*;
use crate::virtio::device::DeviceEvent;

impl Disk {
    /// Another image of `sectors`, each filled with `fill`.
    fn another(&self, sectors: u64, fill: u8) -> PathBuf {
        let path = self.directory.path().join(format!("other-{fill}.img"));
        std::fs::write(&path, vec![fill; (sectors * SECTOR_SIZE) as usize]).unwrap();
        path
    }

    fn swap(&self, path: &Path) -> Result<(), BlockError> {
        self.device().swap(path)
    }

    /// The capacity that the guest reads, in sectors.
    fn capacity(&self) -> u64 {
        u64::from_le_bytes(self.harness.config(0, 8).try_into().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.config.path_on_host.clone().unwrap()
    }
}

fn is_free(path: &Path) -> bool {
    BlockDevice::open(&config(path, IoEngine::Sync)).is_ok()
}

#[test]
fn the_guest_is_told_and_reads_and_writes_the_new_file() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        assert_eq!(disk.read(1, 512), (OK, sector(1)));
        let other = disk.another(4096, 0x77);
        let interrupts = disk.harness.interrupts();
        disk.swap(&other).unwrap();
        assert_eq!(disk.capacity(), 4096);
        assert_eq!(disk.device().size(), 4096 * 512);
        assert_eq!(disk.harness.interrupts(), interrupts + 1);
        if engine == IoEngine::Sync {
            let status = disk.harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS);
            assert_eq!(status & 2, 2, "a change of the configuration");
        }
        assert_eq!(disk.read(4095, 512), (OK, sector(0x77)));
        assert_eq!(disk.write(1, &sector(0x88)), OK);
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_FLUSH, 0), &[]), OK);
        assert_eq!(disk.on_host(1, 1), sector(1), "the old file is as it was");
        assert!(is_free(&disk.path()), "{engine:?}: and free");
        assert!(!is_free(&other));
        assert_eq!(disk.metrics.swaps.get(), 1);
    }
}

#[test]
fn a_smaller_file_refuses_what_lies_behind_its_end() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let other = disk.another(8, 0x77);
        disk.swap(&other).unwrap();
        assert_eq!(disk.read(7, 512).0, OK);
        assert_eq!(disk.read(8, 512).0, IOERR);
        assert_eq!(disk.read(7, 1024).0, IOERR);
    }
}

#[test]
fn the_same_file_has_its_new_size() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        disk.file.set_len(2 * SECTORS * SECTOR_SIZE).unwrap();
        assert_eq!(disk.read(SECTORS, 512).0, IOERR, "not before");
        disk.swap(&disk.path()).unwrap();
        assert_eq!(disk.capacity(), 2 * SECTORS);
        assert_eq!(disk.read(2 * SECTORS - 1, 512), (OK, sector(0)));
        assert_eq!(disk.read(5, 512), (OK, sector(5)));
        assert!(!is_free(&disk.path()), "it stays locked");
        let link = disk.directory.path().join("link.img");
        std::fs::hard_link(disk.path(), &link).unwrap();
        disk.swap(&link).unwrap();
        assert!(!is_free(&disk.path()), "another name of it is the same file");
    }
}

#[test]
fn a_swap_that_fails_changes_nothing() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let in_use = disk.another(16, 1);
        let _user = BlockDevice::open(&config(&in_use, IoEngine::Sync)).unwrap();
        let odd = disk.directory.path().join("odd.img");
        std::fs::write(&odd, [0; 700]).unwrap();
        let interrupts = disk.harness.interrupts();
        for (path, message) in [
            (disk.directory.path().join("missing"), "cannot open"),
            (disk.directory.path().to_path_buf(), "is a directory"),
            (PathBuf::from("/dev/null"), "character device"),
            (odd, "700 bytes"),
            (in_use, "in use"),
        ] {
            let error = disk.swap(&path).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        assert_eq!((disk.capacity(), disk.harness.interrupts()), (SECTORS, interrupts), "{engine:?}");
        assert_eq!(disk.write(1, &sector(0x99)), OK);
        assert_eq!(disk.on_host(1, 1), sector(0x99));
        assert_eq!(disk.metrics.swaps.get(), 0);
        assert!(!is_free(&disk.path()));
    }
}

#[test]
fn a_read_only_disk_stays_read_only() {
    let mut disk = Disk::with(IoEngine::Async, FLUSH, |config| config.is_read_only = true);
    let other = disk.another(16, 0x55);
    disk.swap(&other).unwrap();
    assert_eq!(disk.read(3, 512), (OK, sector(0x55)));
    assert_eq!(disk.write(3, &sector(1)), IOERR);
    let mut reader = config(&other, IoEngine::Sync);
    reader.is_read_only = true;
    assert!(BlockDevice::open(&reader).is_ok(), "the lock is shared, as before");
}

#[test]
fn what_is_under_way_is_finished_on_the_old_file() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let data = disk.harness.place(&vec![0xab; 256 << 10]);
        let statuses: Vec<_> = (0..4)
            .map(|number| {
                let header = header(VIRTIO_BLK_T_OUT, 512 * number);
                let (buffers, status) = disk.buffers(&header, &[Buffer::readable(data, 256 << 10)]);
                disk.harness.add_chain(0, &buffers);
                status
            })
            .collect();
        // Started, and not yet answered with io_uring.
        disk.harness.core().process(DeviceEvent::Queue(0));
        let other = disk.another(SECTORS, 0x11);
        disk.swap(&other).unwrap();
        for status in statuses {
            assert_eq!(disk.harness.fetch(status, 1), [OK], "{engine:?}: answered when the swap returns");
        }
        assert_eq!(disk.on_host(0, SECTORS), vec![0xab; (SECTORS * SECTOR_SIZE) as usize]);
        assert_eq!(std::fs::read(&other).unwrap(), vec![0x11; (SECTORS * SECTOR_SIZE) as usize]);
        assert_eq!(disk.harness.wait_used(0, 4).len(), 4);
        assert_eq!(disk.read(9, 512), (OK, sector(0x11)));
    }
}

#[test]
fn swaps_under_load_lose_no_request_and_mix_no_data() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let paths = [disk.another(SECTORS, 0x11), disk.another(SECTORS, 0x22)];
        disk.swap(&paths[0]).unwrap();
        let (device, stop, swaps) = (disk.device.clone(), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let swapper = scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let other = &paths[swaps.load(Ordering::SeqCst) % 2];
                    device.lock().unwrap().swap(other).unwrap();
                    swaps.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
            });
            for round in 0..200 {
                // However busy the host is, there are swaps in between.
                while swaps.load(Ordering::SeqCst) < round / 10 && !swapper.is_finished() {
                    std::thread::yield_now();
                }
                let addresses: Vec<_> = (0..16).map(|_| disk.harness.allocate(1024, UNTOUCHED)).collect();
                for address in &addresses {
                    let data = [Buffer::writable(*address, 1024)];
                    let (buffers, _) = disk.buffers(&header(VIRTIO_BLK_T_IN, 7), &data);
                    disk.harness.add_chain(0, &buffers);
                }
                disk.harness.kick(0);
                assert_eq!(disk.harness.wait_used(0, 16).len(), 16);
                for address in addresses {
                    let data = disk.harness.fetch(address, 1024);
                    assert!(
                        data == vec![0x11; 1024] || data == vec![0x22; 1024],
                        "{engine:?}: {:?}",
                        &data[..8]
                    );
                }
            }
            stop.store(true, Ordering::SeqCst);
            swapper.join().unwrap();
        });
        assert!(!disk.harness.needs_reset());
    }
}

#[test]
fn a_disk_that_no_driver_uses_is_swapped_and_its_driver_hears_of_it() {
    let mut disk = Disk::new(IoEngine::Sync);
    disk.harness.write(mmio::VIRTIO_MMIO_STATUS, 0);
    let other = disk.another(64, 0x33);
    disk.swap(&other).unwrap();
    assert_eq!(disk.capacity(), 64);
    assert_eq!(disk.harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    disk.harness.start(FLUSH, 64);
    assert_eq!(disk.harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 2, "it may have read the size before");
    assert_eq!(disk.read(63, 512), (OK, sector(0x33)));
}
