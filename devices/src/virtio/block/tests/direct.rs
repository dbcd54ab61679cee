//! Direct I/O, on the file system of the temporary folder, where that has it.

use skip::Capability;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES;

use super::*;

/// A disk with direct I/O, and the size of its blocks in sectors. If there is none, the running test is skipped.
fn disk(engine: IoEngine) -> Option<(Disk, u64)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("probe.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut probe = config(&path, engine);
    probe.direct = true;
    match BlockDevice::open(&probe) {
        Ok(_) => {}
        Err(BlockError::NoDirect { .. }) => {
            let folder = directory.path().display();
            skip::skip(
                Capability::DirectIo,
                format!("{folder} has no direct I/O; TMPDIR names another folder"),
            );
            return None;
        }
        Err(error) => panic!("{error}"),
    }
    let disk = Disk::with(engine, FLUSH, |config| config.direct = true);
    let block = u64::from(u32::from_le_bytes(disk.harness.config(20, 4).try_into().unwrap()));
    assert!(block.is_power_of_two() && (512..=4096).contains(&block), "blk_size {block}");
    Some((disk, block / SECTOR_SIZE))
}

/// The sectors from `at` on as they are at first.
fn sectors(at: u64, count: u64) -> Vec<u8> {
    (at..at + count).flat_map(sector).collect()
}

#[test]
fn aligned_data_goes_to_and_from_the_disk() {
    for engine in ENGINES {
        let Some((mut disk, block)) = disk(engine) else { return };
        let at = 8 * block;
        let len = 64 << 10;
        let address = disk.harness.allocate(len + 4096, UNTOUCHED).next_multiple_of(4096);
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_IN, at), &[Buffer::writable(address, len)]), OK);
        assert_eq!(disk.harness.fetch(address, len as usize), sectors(at, 128));
        let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        vm_memory::Bytes::write_slice(disk.harness.memory(), &data, vm_memory::GuestAddress(address))
            .unwrap();
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_OUT, at), &[Buffer::readable(address, len)]), OK);
        assert_eq!(disk.on_host(at, 128), data);
    }
}

#[test]
fn buffers_that_lie_anyhow_work_all_the_same() {
    for engine in ENGINES {
        let Some((mut disk, block)) = disk(engine) else { return };
        let len = (512 << 10) + 4096;
        let base = disk.harness.allocate(len + 4096, UNTOUCHED).next_multiple_of(4096) + 13;
        let pieces = |writable: bool| -> Vec<Buffer> {
            let cuts = [0, 1, 700, 4096, 300_001, len];
            let make = if writable { Buffer::writable } else { Buffer::readable };
            cuts.windows(2).map(|cut| make(base + u64::from(cut[0]), cut[1] - cut[0])).collect()
        };
        let at = 16 * block;
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_IN, at), &pieces(true)), OK);
        let all = disk.harness.fetch(base, len as usize);
        assert!(all == sectors(at, u64::from(len) / 512), "{engine:?}");
        let data: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
        vm_memory::Bytes::write_slice(disk.harness.memory(), &data, vm_memory::GuestAddress(base)).unwrap();
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_OUT, 2 * at), &pieces(false)), OK);
        assert!(disk.on_host(2 * at, u64::from(len) / 512) == data, "{engine:?}");
    }
}

#[test]
fn less_than_a_block_is_refused() {
    for engine in ENGINES {
        let Some((mut disk, block)) = disk(engine) else { return };
        if block == 1 {
            continue;
        }
        assert_eq!(disk.read(0, 512).0, IOERR);
        assert_eq!(disk.read(1, 512 * block as u32).0, IOERR);
        assert_eq!(disk.range_request(VIRTIO_BLK_T_WRITE_ZEROES, 1, block as u32, 0), IOERR);
        assert_eq!(disk.on_host(0, 64), sectors(0, 64));
    }
}

#[test]
fn zeroes_and_a_swap_work() {
    for engine in ENGINES {
        let Some((mut disk, block)) = disk(engine) else { return };
        assert_eq!(disk.range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 2 * block as u32, 0), OK);
        assert_eq!(disk.on_host(0, 2 * block), vec![0; (2 * block * SECTOR_SIZE) as usize]);
        let other = disk.directory.path().join("other.img");
        std::fs::write(&other, vec![0x44; 1 << 20]).unwrap();
        disk.device().swap(&other).unwrap();
        assert_eq!(disk.read(8, 4096), (OK, vec![0x44; 4096]));
        let odd = disk.directory.path().join("odd.img");
        std::fs::write(&odd, vec![0; 512 * (block as usize + 1)]).unwrap();
        if block > 1 {
            let error = disk.device().swap(&odd).unwrap_err().to_string();
            assert!(error.contains(&format!("truncate -s %{}", block * SECTOR_SIZE)), "{error}");
        }
    }
}
