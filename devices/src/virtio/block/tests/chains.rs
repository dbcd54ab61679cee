//! What a driver that does wrong gets: an error in the status where there is one, else DEVICE_NEEDS_RESET.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_WRITE_ZEROES,
};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::queue_harness::MEMORY_SIZE;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The disk is as it was, and still answers.
fn assert_unharmed(disk: &mut Disk) {
    assert!(!disk.harness.needs_reset());
    assert_eq!(disk.on_host(0, SECTORS), (0..SECTORS).flat_map(sector).collect::<Vec<_>>());
    assert_eq!(disk.read(1, 512), (OK, sector(1)));
}

#[test]
fn sectors_past_the_end_are_refused() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let last = SECTORS - 1;
        for at in [SECTORS, SECTORS + 1, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(disk.read(at, 512).0, IOERR, "{at:#x}");
            assert_eq!(disk.write(at, &sector(0xff)), IOERR, "{at:#x}");
            assert_eq!(disk.range_request(VIRTIO_BLK_T_DISCARD, at, 1, 0), IOERR, "{at:#x}");
            assert_eq!(disk.range_request(VIRTIO_BLK_T_WRITE_ZEROES, at, 1, 0), IOERR, "{at:#x}");
        }
        assert_eq!(disk.read(last, 1024).0, IOERR);
        assert_eq!(disk.write(last, &[0xff; 1024]), IOERR);
        assert_unharmed(&mut disk);
    }
}

#[test]
fn a_request_for_more_data_than_one_may_have_is_refused() {
    const LEN: u32 = 512 << 10;
    for engine in ENGINES {
        // A hole: there is nothing to read, but time to spend.
        let mut disk = Disk::with(engine, FLUSH, |config| {
            let path = config.path_on_host.as_ref().unwrap();
            File::options().write(true).open(path).unwrap().set_len(1 << 30).unwrap();
        });
        let address = disk.harness.allocate(LEN, UNTOUCHED);
        for (count, status) in [(40, OK), (41, IOERR)] {
            let data = vec![Buffer::writable(address, LEN); count];
            assert_eq!(disk.request(&header(VIRTIO_BLK_T_IN, 0), &data), status, "{engine:?} {count}");
        }
        assert!(!disk.harness.needs_reset());
    }
}

#[test]
fn ranges_that_are_too_long_or_malformed_are_refused() {
    let mut disk = Disk::new(IoEngine::Sync);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(disk.range_request(kind, 1, u32::MAX, 0), IOERR);
        assert_eq!(disk.range_request(kind, SECTORS - 1, 2, 0), IOERR);
        assert_eq!(disk.range_request(kind, u64::MAX, 1, 0), IOERR);
        assert_eq!(disk.range_request(kind, 1, 1, 2), UNSUPP, "a flag that nobody knows");
        assert_eq!(disk.request(&header(kind, 0), &[]), IOERR, "no range");
        let two = disk.harness.place(&[range(1, 1, 0), range(2, 1, 0)].concat());
        assert_eq!(disk.request(&header(kind, 0), &[Buffer::readable(two, 32)]), IOERR, "two ranges");
        assert_eq!(disk.request(&header(kind, 0), &[Buffer::readable(two, 15)]), IOERR, "a part of one");
        assert_eq!(disk.request(&header(kind, 0), &[Buffer::readable(MEMORY_SIZE, 16)]), IOERR, "no memory");
    }
    assert_eq!(disk.range_request(VIRTIO_BLK_T_DISCARD, 1, 1, 1), UNSUPP, "unmap is for zeroing");
    assert_unharmed(&mut disk);
}

#[test]
fn requests_of_an_unknown_kind_are_unsupported() {
    let mut disk = Disk::new(IoEngine::Sync);
    for kind in [2, 3, 5, 10, 12, 14, 15, 16, 0x8000_0000, u32::MAX] {
        assert_eq!(disk.request(&header(kind, 0), &[]), UNSUPP, "{kind:#x}");
    }
    assert_unharmed(&mut disk);
}

#[test]
fn data_must_be_whole_sectors_in_the_right_direction() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        assert_eq!(disk.read(1, 511).0, IOERR);
        assert_eq!(disk.read(1, 513).0, IOERR);
        assert_eq!(disk.write(1, &[0xff; 100]), IOERR);
        let address = disk.harness.allocate(512, 0xff);
        let (readable, writable) = (Buffer::readable(address, 512), Buffer::writable(address, 512));
        assert_eq!(
            disk.request(&header(VIRTIO_BLK_T_IN, 1), &[readable]),
            IOERR,
            "read into a readable buffer"
        );
        assert_eq!(
            disk.request(&header(VIRTIO_BLK_T_OUT, 1), &[writable]),
            IOERR,
            "write from a writable buffer"
        );
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_GET_ID, 1), &[readable]), IOERR);
        assert_eq!(disk.harness.fetch(address, 512), [0xff; 512]);
        assert_unharmed(&mut disk);
    }
}

#[test]
fn a_header_that_is_short_writable_or_nowhere_is_refused() {
    let mut disk = Disk::new(IoEngine::Sync);
    for len in [0, 1, 15] {
        assert_eq!(disk.request(&header(VIRTIO_BLK_T_FLUSH, 0)[..len], &[]), IOERR, "{len} bytes");
    }
    let (address, status) =
        (disk.harness.place(&header(VIRTIO_BLK_T_FLUSH, 0)), disk.harness.allocate(1, UNTOUCHED));
    for first in
        [Buffer::writable(address, 16), Buffer::readable(MEMORY_SIZE - 8, 16), Buffer::readable(u64::MAX, 16)]
    {
        disk.harness.memory().write_obj(UNTOUCHED, GuestAddress(status)).unwrap();
        disk.harness.add_chain(0, &[first, Buffer::writable(status, 1)]);
        disk.harness.kick(0);
        assert_eq!(disk.harness.fetch(status, 1), [IOERR], "{first:?}");
    }
    assert_unharmed(&mut disk);
}

#[test]
fn data_outside_of_memory_is_an_error_of_the_request() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        let inside = disk.harness.allocate(512, 0xff);
        for address in [MEMORY_SIZE - 256, MEMORY_SIZE, 1 << 40, u64::MAX - 511, u64::MAX - 100] {
            let (into, from) = (Buffer::writable(address, 512), Buffer::readable(address, 512));
            let (into_too, from_too) = (Buffer::writable(inside, 512), Buffer::readable(inside, 512));
            assert_eq!(disk.request(&header(VIRTIO_BLK_T_IN, 1), &[into_too, into]), IOERR, "{address:#x}");
            assert_eq!(disk.request(&header(VIRTIO_BLK_T_OUT, 1), &[from_too, from]), IOERR, "{address:#x}");
            let id = Buffer::writable(address.saturating_add(250), 20);
            assert_eq!(disk.request(&header(VIRTIO_BLK_T_GET_ID, 1), &[id]), IOERR, "{address:#x}");
        }
        assert_eq!(disk.harness.fetch(inside, 512), [0xff; 512], "not even the part that is inside");
        assert_unharmed(&mut disk);
    }
}

/// Has the device process whatever `prepare` did to the ring, and expects it to ask for a reset and to work after it.
fn needs_reset_after(what: &str, prepare: impl Fn(&mut Disk)) {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        prepare(&mut disk);
        disk.harness.kick(0);
        assert!(disk.harness.needs_reset(), "{what} with {engine:?}");
        assert!(disk.harness.interrupts() > 0, "{what} with {engine:?}");
        disk.harness.start(FLUSH, 256);
        assert_unharmed(&mut disk);
    }
}

#[test]
fn a_chain_without_a_status_byte_needs_a_reset() {
    needs_reset_after("nothing writable", |disk| {
        let address = disk.harness.place(&header(VIRTIO_BLK_T_OUT, 0));
        disk.harness.add_chain(0, &[Buffer::readable(address, 16)]);
    });
    needs_reset_after("an empty chain", |disk| {
        disk.harness.add_chain(0, &[Buffer::readable(0, 0)]);
    });
    for address in [MEMORY_SIZE, u64::MAX] {
        needs_reset_after("a status outside of memory", |disk| {
            let (mut buffers, _) = disk.buffers(&header(VIRTIO_BLK_T_FLUSH, 0), &[]);
            buffers.pop();
            buffers.push(Buffer::writable(address, 1));
            disk.harness.add_chain(0, &buffers);
        });
    }
}

#[test]
fn a_broken_chain_needs_a_reset() {
    needs_reset_after("a loop", |disk| {
        disk.harness.write_descriptor(0, 0, Descriptor::new(0x1000, 16, NEXT, 1));
        disk.harness.write_descriptor(0, 1, Descriptor::new(0x1000, 16, NEXT, 0));
        disk.harness.make_available(0, 0);
    });
    needs_reset_after("a next descriptor outside of the table", |disk| {
        disk.harness.write_descriptor(0, 0, Descriptor::new(0x1000, 16, NEXT, 256));
        disk.harness.make_available(0, 0);
    });
    needs_reset_after("a readable buffer after a writable one", |disk| {
        let (mut buffers, _) = disk.buffers(&header(VIRTIO_BLK_T_FLUSH, 0), &[]);
        buffers.reverse();
        disk.harness.add_chain(0, &buffers);
    });
    needs_reset_after("more than 4 GiB", |disk| {
        let huge = Buffer::writable(0, u32::MAX);
        let (buffers, _) = disk.buffers(&header(VIRTIO_BLK_T_IN, 0), &[huge, huge]);
        disk.harness.add_chain(0, &buffers);
    });
    for (what, table, len) in [
        ("an indirect table of no entry", 0x1000, 0),
        ("an indirect table of a part of an entry", 0x1000, 17),
        ("an indirect table outside of memory", MEMORY_SIZE, 32),
    ] {
        needs_reset_after(what, |disk| {
            disk.harness.write_descriptor(0, 0, Descriptor::new(table, len, INDIRECT, 0));
            disk.harness.make_available(0, 0);
        });
    }
    needs_reset_after("an indirect table in an indirect table", |disk| {
        let table = disk.harness.allocate(16, 0);
        disk.harness
            .memory()
            .write_obj(Descriptor::new(table, 16, INDIRECT, 0), GuestAddress(table))
            .unwrap();
        disk.harness.write_descriptor(0, 0, Descriptor::new(table, 16, INDIRECT, 0));
        disk.harness.make_available(0, 0);
    });
    needs_reset_after("an indirect table longer than a chain can be", |disk| {
        let buffers: Vec<_> = (0..2000).map(|_| Buffer::writable(0x1000, 1)).collect();
        disk.harness.add_indirect_chain(0, &buffers);
    });
}

#[test]
fn a_broken_ring_needs_a_reset() {
    needs_reset_after("a head outside of the table", |disk| disk.harness.make_available(0, 256));
    needs_reset_after("a head far outside of the table", |disk| disk.harness.make_available(0, u16::MAX));
    needs_reset_after("an index ahead by more than the ring", |disk| disk.harness.set_avail_idx(0, 257));
    needs_reset_after("an index that goes back", |disk| disk.harness.set_avail_idx(0, u16::MAX));
}

#[test]
fn a_chain_that_is_available_twice_is_done_twice_or_needs_a_reset() {
    for engine in ENGINES {
        let mut disk = Disk::new(engine);
        // A flush, which no engine but the synchronous one does at once.
        let (buffers, _) = disk.buffers(&header(VIRTIO_BLK_T_FLUSH, 0), &[]);
        let head = disk.harness.add_chain(0, &buffers);
        disk.harness.make_available(0, head);
        disk.harness.kick(0);
        if engine == IoEngine::Sync {
            assert_eq!(disk.harness.take_used(0).len(), 2);
        } else {
            assert!(disk.harness.needs_reset());
        }
        disk.harness.start(FLUSH, 256);
        assert_unharmed(&mut disk);
    }
}

#[test]
fn a_write_flag_on_an_indirect_descriptor_changes_nothing() {
    let mut disk = Disk::new(IoEngine::Sync);
    let status = disk.harness.allocate(1, UNTOUCHED);
    let head = disk.harness.place(&header(VIRTIO_BLK_T_FLUSH, 0));
    let table = disk.harness.allocate(32, 0);
    disk.harness.memory().write_obj(Descriptor::new(head, 16, NEXT, 1), GuestAddress(table)).unwrap();
    disk.harness.memory().write_obj(Descriptor::new(status, 1, WRITE, 0), GuestAddress(table + 16)).unwrap();
    disk.harness.write_descriptor(0, 0, Descriptor::new(table, 32, INDIRECT | WRITE, 0));
    disk.harness.make_available(0, 0);
    disk.harness.kick(0);
    assert_eq!(disk.harness.fetch(status, 1), [OK]);
}
