//! What a driver that does right gets.

use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_RO, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_WRITE_ZEROES,
};
use virtio_bindings::virtio_mmio as mmio;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::device::DeviceEvent;
use crate::virtio::queue_harness::{REGION_BOUNDARY, VERSION_1};

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

#[test]
fn reads_and_writes_move_data_between_guest_and_file() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        assert_eq!(disk.read(7, 1024), (OK, [sector(7), sector(8)].concat()));
        assert_eq!(disk.read(SECTORS - 1, 512), (OK, sector(SECTORS - 1)));
        assert_eq!(disk.write(3, &[0xab; 1024]), OK);
        assert_eq!(disk.on_host(2, 4), [sector(2), sector(0xab), sector(0xab), sector(5)].concat());
        assert_eq!(disk.read(4, 512), (OK, sector(0xab)));
        let metrics = &disk.metrics;
        assert_eq!((metrics.reads.get(), metrics.read_bytes.get()), (3, 2048));
        assert_eq!((metrics.writes.get(), metrics.written_bytes.get()), (1, 1024));
    }
}

#[test]
fn a_request_may_be_cut_into_descriptors_anywhere() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let head = disk.harness.place(&header(VIRTIO_BLK_T_IN, 9));
        let answer = disk.harness.allocate(513, UNTOUCHED);
        let pieces = [
            Buffer::readable(head, 1),
            Buffer::readable(head + 1, 0),
            Buffer::readable(head + 1, 10),
            Buffer::readable(head + 11, 5),
            Buffer::writable(answer, 100),
            Buffer::writable(answer + 100, 1),
            Buffer::writable(answer + 101, 412),
        ];
        disk.harness.add_chain(0, &pieces);
        disk.harness.kick(0);
        assert_eq!(disk.harness.wait_used(0, 1)[0].len, 513);
        let expected = [&sector(9)[..], &[OK]].concat();
        assert_eq!(disk.harness.fetch(answer, 513), expected, "data and status in one run");

        // The header and the data that is written share a descriptor.
        let all = disk.harness.place(&[header(VIRTIO_BLK_T_OUT, 20), sector(0x55)].concat());
        let status = disk.harness.allocate(1, UNTOUCHED);
        disk.harness.add_chain(0, &[Buffer::readable(all, 528), Buffer::writable(status, 1)]);
        disk.harness.kick(0);
        disk.harness.wait_used(0, 1);
        assert_eq!(disk.harness.fetch(status, 1), [OK]);
        assert_eq!(disk.on_host(20, 1), sector(0x55));
    }
}

#[test]
fn a_buffer_may_cross_from_one_region_of_memory_to_the_next() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let address = REGION_BOUNDARY - 700;
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_IN, 1), &[Buffer::writable(address, 1536)]), OK);
        assert_eq!(disk.harness.fetch(address, 1536), [sector(1), sector(2), sector(3)].concat());
    }
}

#[test]
fn an_indirect_chain_is_a_chain() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let address = disk.harness.allocate(512 * 300, UNTOUCHED);
        let data: Vec<_> = (0..300).map(|piece| Buffer::writable(address + 512 * piece, 512)).collect();
        let (buffers, status) = disk.buffers(&header(VIRTIO_BLK_T_IN, 0), &data);
        disk.harness.add_indirect_chain(0, &buffers);
        disk.harness.kick(0);
        disk.harness.wait_used(0, 1);
        assert_eq!(disk.harness.fetch(status, 1), [OK]);
        assert_eq!(disk.harness.fetch(address, 512 * 300), disk.on_host(0, 300));
    }
}

#[test]
fn flush_is_done_when_offered_and_unknown_when_not() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_FLUSH, 0), &[]), OK);
        assert_eq!(disk.metrics.flushes.get(), 1);
        let mut disk = Disk::with(engine, 0, |config| config.cache_type = CacheType::Unsafe);
        assert_eq!(disk.harness.read(mmio::VIRTIO_MMIO_DEVICE_FEATURES) & FLUSH as u32, 0);
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_FLUSH, 0), &[]), UNSUPP);
    }
}

#[test]
fn a_driver_without_flush_writes_through() {
    for engine in ENGINES {
        let mut disk = Disk::with(engine, 0, |_| {});
        assert_eq!(disk.write(3, &sector(0x77)), OK);
        assert_eq!(disk.on_host(3, 1), sector(0x77));
    }
}

#[test]
fn get_id_gives_twenty_bytes_of_the_drive_id() {
    for (id, expected) in [
        ("rootfs", *b"rootfs\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("a23456789b123456789c1234", *b"a23456789b123456789c"),
    ] {
        let mut disk = Disk::with(IoEngine::Sync, 0, |config| config.drive_id = id.into());
        let address = disk.harness.allocate(20, UNTOUCHED);
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_GET_ID, 0), &[Buffer::writable(address, 20)]), OK);
        assert_eq!(disk.harness.fetch(address, 20), expected);
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_GET_ID, 0), &[Buffer::writable(address, 19)]), IOERR);
    }
}

#[test]
fn discard_gives_storage_back_to_the_host() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        disk.file.sync_all().unwrap();
        let before = disk.file.metadata().unwrap();
        assert_eq!(disk.range_request(VIRTIO_BLK_T_DISCARD, 1024, 512, 0), OK);
        disk.file.sync_all().unwrap();
        let after = disk.file.metadata().unwrap();
        assert_eq!(before.blocks() - after.blocks(), 512, "blocks of 512 bytes");
        assert_eq!(before.size(), after.size());
        assert_eq!(disk.on_host(1023, 2), [sector(1023), sector(0)].concat());
        assert_eq!(disk.range_request(VIRTIO_BLK_T_DISCARD, 0, 0, 0), OK, "nothing to do");
    }
}

#[test]
fn write_zeroes_zeroes_and_frees_only_when_it_may() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        disk.file.sync_all().unwrap();
        let before = disk.file.metadata().unwrap().blocks();
        assert_eq!(disk.range_request(VIRTIO_BLK_T_WRITE_ZEROES, 16, 256, 0), OK);
        assert_eq!(disk.on_host(15, 258), [sector(15), vec![0; 256 * 512], sector(272)].concat());
        disk.file.sync_all().unwrap();
        assert_eq!(disk.file.metadata().unwrap().blocks(), before, "storage is kept");
        assert_eq!(disk.range_request(VIRTIO_BLK_T_WRITE_ZEROES, 16, 256, 1), OK);
        disk.file.sync_all().unwrap();
        assert_eq!(before - disk.file.metadata().unwrap().blocks(), 256, "storage is given back");
        assert_eq!(
            disk.range_request(VIRTIO_BLK_T_WRITE_ZEROES, 3, 1, 1),
            OK,
            "less than a block of the host"
        );
        assert_eq!(disk.on_host(2, 3), [sector(2), sector(0), sector(4)].concat());
    }
}

#[test]
fn a_read_only_disk_offers_no_writes_and_takes_none() {
    for engine in ENGINES {
        let mut disk = Disk::with(engine, FLUSH, |config| config.is_read_only = true);
        let features = disk.harness.read(mmio::VIRTIO_MMIO_DEVICE_FEATURES);
        assert_eq!(features & (1 << VIRTIO_BLK_F_RO | 1 << VIRTIO_BLK_F_DISCARD), 1 << VIRTIO_BLK_F_RO);
        assert_eq!(disk.write(0, &sector(0xff)), IOERR);
        assert_eq!(disk.range_request(VIRTIO_BLK_T_DISCARD, 0, 8, 0), IOERR);
        assert_eq!(disk.range_request(VIRTIO_BLK_T_WRITE_ZEROES, 1, 8, 0), IOERR);
        assert_eq!(disk.on_host(0, 10), (0..10).flat_map(sector).collect::<Vec<_>>());
        assert_eq!(disk.read(1, 512), (OK, sector(1)));
    }
}

#[test]
fn the_configuration_space_has_what_the_features_promise() {
    let disk = Disk::new(IoEngine::Sync);
    let number = |offset, len| {
        let mut bytes = disk.harness.config(offset, len);
        bytes.resize(8, 0);
        u64::from_le_bytes(bytes.try_into().unwrap())
    };
    assert_eq!(number(0, 8), SECTORS);
    assert_eq!(number(12, 4), 320, "seg_max");
    assert_eq!(number(20, 4), 512, "blk_size");
    assert_eq!((number(36, 4), number(40, 4)), (1 << 21, 1), "discard");
    assert_eq!((number(48, 4), number(52, 4), number(56, 1)), (1 << 15, 1, 1), "write zeroes");
    assert_eq!(disk.harness.config(58, 8), [0; 8], "past the end");
}

#[test]
fn a_full_ring_is_served_in_shares_and_none_is_lost() {
    for engine in ENGINES {
        let mut disk = Disk::with(engine, FLUSH | EVENT_IDX, |_| {});
        disk.harness.set_used_event(0, 84);
        let mut requests = Vec::new();
        for number in 0..85 {
            let address = disk.harness.allocate(512, UNTOUCHED);
            let (buffers, status) =
                disk.buffers(&header(VIRTIO_BLK_T_IN, number), &[Buffer::writable(address, 512)]);
            disk.harness.add_chain(0, &buffers);
            requests.push((number, address, status));
        }
        disk.harness.kick(0);
        assert_eq!(disk.harness.wait_used(0, 85).len(), 85);
        for (number, address, status) in requests {
            assert_eq!(disk.harness.fetch(status, 1), [OK]);
            assert_eq!(disk.harness.fetch(address, 512), sector(number));
        }
        assert_eq!(disk.harness.interrupts(), 1, "{engine:?}: only past used_event");
        assert_eq!(disk.harness.avail_event(0), 85, "asks for the next notification");
    }
}

#[test]
fn more_data_than_may_be_under_way_is_moved_in_turn() {
    const LEN: u32 = 1 << 20;
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let address = disk.harness.allocate(LEN, UNTOUCHED);
        // All into the same memory: it is not about the data. 80 MiB, of which 64 can be under way.
        let statuses: Vec<_> = (0..80)
            .map(|_| {
                let (buffers, status) =
                    disk.buffers(&header(VIRTIO_BLK_T_IN, 0), &[Buffer::writable(address, LEN)]);
                disk.harness.add_chain(0, &buffers);
                status
            })
            .collect();
        disk.harness.kick(0);
        assert_eq!(disk.harness.wait_used(0, statuses.len()).len(), statuses.len(), "{engine:?}");
        assert!(statuses.iter().all(|status| disk.harness.fetch(*status, 1) == [OK]));
        assert_eq!(disk.read(5, 512), (OK, sector(5)));
    }
}

#[test]
fn zeroes_are_written_in_shares() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let range = disk.harness.place(&range(0, SECTORS as u32, 0));
        // The whole disk, 1 MiB, each time; a call does 16 MiB.
        for _ in 0..40 {
            let (buffers, _) =
                disk.buffers(&header(VIRTIO_BLK_T_WRITE_ZEROES, 0), &[Buffer::readable(range, 16)]);
            disk.harness.add_chain(0, &buffers);
        }
        disk.harness.core().process(DeviceEvent::Queue(0));
        assert_eq!(disk.harness.take_used(0).len(), 16, "{engine:?}");
        assert_eq!(disk.harness.wait_used(0, 24).len(), 24, "{engine:?}: the rest comes of itself");
    }
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        disk.harness.set_avail_flags(0, 1);
        assert_eq!(disk.read(0, 512).0, OK);
        assert_eq!(disk.harness.interrupts(), 0);
        disk.harness.set_avail_flags(0, 0);
        assert_eq!(disk.read(0, 512).0, OK);
        assert_eq!(disk.harness.interrupts(), 1);
    }
}

#[test]
fn a_reset_in_flight_leaves_guest_memory_alone_afterwards() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let len = 256 << 10;
        let addresses: Vec<_> = (0..4).map(|_| disk.harness.allocate(len, UNTOUCHED)).collect();
        for address in &addresses {
            let (buffers, _) = disk.buffers(&header(VIRTIO_BLK_T_IN, 0), &[Buffer::writable(*address, len)]);
            disk.harness.add_chain(0, &buffers);
        }
        // Started, and not yet answered with io_uring.
        disk.harness.core().process(DeviceEvent::Queue(0));
        disk.harness.write(mmio::VIRTIO_MMIO_STATUS, 0);
        for address in &addresses {
            disk.harness.memory().write_slice(&vec![0x11; len as usize], GuestAddress(*address)).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        while disk.harness.run_once(std::time::Duration::ZERO) {}
        for address in &addresses {
            assert_eq!(disk.harness.fetch(*address, len as usize), vec![0x11; len as usize]);
        }
        disk.harness.start(FLUSH, 64);
        assert_eq!(disk.read(5, 512), (OK, sector(5)), "and the device starts again");
    }
}

#[test]
fn a_completion_that_is_signalled_after_a_reset_wakes_nobody_for_long() {
    let mut disk = Disk::new(IoEngine::Async);
    disk.harness.write(mmio::VIRTIO_MMIO_STATUS, 0);
    disk.device().completion_event.as_ref().unwrap().write(1).unwrap();
    let wakeups = (0..20).filter(|_| disk.harness.run_once(std::time::Duration::ZERO)).count();
    assert!(wakeups <= 1, "{wakeups} wake-ups for nothing");
    disk.harness.start(FLUSH, 64);
    assert_eq!(disk.read(5, 512), (OK, sector(5)));
}

#[test]
fn a_vcpu_resets_the_device_while_the_event_loop_waits() {
    let mut disk = Disk::new(IoEngine::Async);
    let len = 512 << 10;
    for _ in 0..4 {
        let address = disk.harness.allocate(len, UNTOUCHED);
        let (buffers, _) = disk.buffers(&header(VIRTIO_BLK_T_IN, 0), &[Buffer::writable(address, len)]);
        disk.harness.add_chain(0, &buffers);
    }
    let (core, started, done) = (disk.harness.core(), Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        // The kernel finishes some of the work in the thread that started it: that must not need the thread's help.
        scope.spawn(|| {
            core.process(DeviceEvent::Queue(0));
            started.wait();
            done.wait();
        });
        started.wait();
        core.set_status(0);
        done.wait();
    });
    assert_eq!(disk.harness.status(), 0);
    disk.harness.start(FLUSH, 64);
    assert_eq!(disk.read(5, 512), (OK, sector(5)));
}

#[test]
fn a_queue_that_the_driver_left_out_does_nothing() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        disk.harness.negotiate(VERSION_1 | FLUSH);
        let memory = disk.harness.fetch(0, 4096);
        disk.harness.write(mmio::VIRTIO_MMIO_STATUS, disk.harness.status() | 4);
        disk.harness.memory().write_slice(&[0xff; 64], GuestAddress(0)).unwrap();
        disk.harness.kick(0);
        assert!(!disk.harness.needs_reset());
        disk.harness.memory().write_slice(&memory[..64], GuestAddress(0)).unwrap();
        assert_eq!(disk.harness.fetch(0, 4096), memory, "no ring is made up");
    }
}

#[test]
fn a_disk_that_shrinks_on_the_host_fails_its_requests() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        disk.file.set_len(10 * SECTOR_SIZE).unwrap();
        assert_eq!(disk.read(8, 1024).0, OK);
        assert_eq!(disk.read(9, 1024).0, IOERR, "half of it is there");
        assert_eq!(disk.read(100, 512).0, IOERR);
        assert_eq!(disk.metrics.host_errors.get(), 2);
        assert!(!disk.harness.needs_reset());
    }
}
