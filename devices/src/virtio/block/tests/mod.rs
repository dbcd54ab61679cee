//! The block device as a driver sees it, with both engines; `open` is about files, `chains` about drivers that do
//! wrong, `swap`, `limits` and `direct` about what the host adds, `shortage` about a host that
//! is short of memory, `restore` about being saved.

mod chains;
mod data;
mod direct;
mod limits;
mod open;
mod restore;
mod shortage;
mod swap;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};

use super::*;
use crate::metrics::BlockMetrics;
use crate::virtio::queue_harness::{Buffer, Harness, TransportKind};

const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IOERR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPP: u8 = VIRTIO_BLK_S_UNSUPP as u8;
const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

const ENGINES: [IoEngine; 2] = [IoEngine::Sync, IoEngine::Async];
const SECTORS: u64 = 2048;
/// What a status byte holds before the device writes it.
const UNTOUCHED: u8 = 0xee;

/// A disk whose sector N is filled with the low byte of N, and its file on the host.
struct Disk {
    harness: Harness,
    /// As the controller holds it.
    device: Arc<Mutex<BlockDevice>>,
    file: File,
    metrics: Arc<BlockMetrics>,
    config: BlockConfig,
    directory: tempfile::TempDir,
}

fn config(path: &std::path::Path, io_engine: IoEngine) -> BlockConfig {
    BlockConfig {
        drive_id: "rootfs".into(),
        is_root_device: false,
        path_on_host: Some(path.to_path_buf()),
        is_read_only: false,
        partuuid: None,
        cache_type: CacheType::Writeback,
        rate_limiter: None,
        io_engine: Some(io_engine),
        socket: None,
        direct: false,
    }
}

fn sector(number: u64) -> Vec<u8> {
    vec![number as u8; SECTOR_SIZE as usize]
}

impl Disk {
    /// A disk with its driver started with `features`.
    fn with(io_engine: IoEngine, features: u64, change: impl FnOnce(&mut BlockConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        (0..SECTORS).for_each(|number| file.write_all_at(&sector(number), number * SECTOR_SIZE).unwrap());
        let mut config = config(&path, io_engine);
        change(&mut config);
        let device = BlockDevice::open(&config).unwrap();
        let metrics = device.metrics();
        let device = Arc::new(Mutex::new(device));
        // What holds for a disk holds behind either transport; engines and transports are tried side by side.
        let transport = match io_engine {
            IoEngine::Sync => TransportKind::Mmio,
            IoEngine::Async => TransportKind::Pci,
        };
        let mut harness = Harness::behind(transport, device.clone());
        harness.start(features, 256);
        assert!(!harness.needs_reset());
        Self { harness, device, file, metrics, config, directory }
    }

    /// The device, for what the host does to it.
    fn device(&self) -> MutexGuard<'_, BlockDevice> {
        self.device.lock().unwrap()
    }

    /// Makes `count` reads of one sector each available, of the first sectors; the addresses of their statuses.
    fn add_reads(&mut self, count: u64) -> Vec<u64> {
        let address = self.harness.allocate(512, UNTOUCHED);
        let read = |number| header(VIRTIO_BLK_T_IN, number);
        (0..count)
            .map(|number| {
                let (buffers, status) = self.buffers(&read(number), &[Buffer::writable(address, 512)]);
                self.harness.add_chain(0, &buffers);
                status
            })
            .collect()
    }

    fn new(io_engine: IoEngine) -> Self {
        Self::with(io_engine, FLUSH, |_| {})
    }

    /// Sends a request and waits for its status.
    fn request(&mut self, header: &[u8], data: &[Buffer]) -> u8 {
        let (buffers, status) = self.buffers(header, data);
        self.harness.add_chain(0, &buffers);
        self.harness.kick(0);
        self.harness.wait_used(0, 1);
        self.harness.fetch(status, 1)[0]
    }

    /// The usual layout of a request, and the address of its status.
    fn buffers(&mut self, header: &[u8], data: &[Buffer]) -> (Vec<Buffer>, u64) {
        let status = self.harness.allocate(1, UNTOUCHED);
        let header = Buffer::readable(self.harness.place(header), header.len() as u32);
        let buffers = [&[header], data, &[Buffer::writable(status, 1)]].concat();
        (buffers, status)
    }

    fn read(&mut self, at: u64, len: u32) -> (u8, Vec<u8>) {
        let address = self.harness.allocate(len, UNTOUCHED);
        let status = self.request(&header(VIRTIO_BLK_T_IN, at), &[Buffer::writable(address, len)]);
        (status, self.harness.fetch(address, len as usize))
    }

    fn write(&mut self, at: u64, data: &[u8]) -> u8 {
        let address = self.harness.place(data);
        self.request(&header(VIRTIO_BLK_T_OUT, at), &[Buffer::readable(address, data.len() as u32)])
    }

    /// Sends a discard or a zeroing of `sectors` at `at`.
    fn range_request(&mut self, kind: u32, at: u64, sectors: u32, flags: u32) -> u8 {
        let range = self.harness.place(&range(at, sectors, flags));
        self.request(&header(kind, 0), &[Buffer::readable(range, 16)])
    }

    /// `count` sectors of the file on the host.
    fn on_host(&self, at: u64, count: u64) -> Vec<u8> {
        let mut data = vec![0; (count * SECTOR_SIZE) as usize];
        self.file.read_exact_at(&mut data, at * SECTOR_SIZE).unwrap();
        data
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}
