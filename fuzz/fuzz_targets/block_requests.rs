//! A driver that sends a block device anything: broken headers, odd layouts, loops, buffers outside of memory. Meanwhile the
//! host changes its limits and swaps the file behind it.
//!
//! Holds: no panic and no hang; the images keep their size and, when they are read-only, their contents; every request gets
//! an answer or the device asks for a reset; and after a reset the device works.
#![no_main]

mod driver;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::rate_limiter::{RateLimiterConfig, TokenBucketConfig};
use devices::virtio::block::{BlockConfig, BlockDevice, CacheType, IoEngine};
use devices::virtio::queue_harness::{Buffer, Harness};
use driver::{Piece, Place};
use libfuzzer_sys::fuzz_target;

const SECTORS: u64 = 64;
const FLUSH: u64 = 1 << 9;
const EVENT_IDX: u64 = 1 << 29;

#[derive(Arbitrary, Debug)]
struct Input {
    pci: bool,
    read_only: bool,
    uring: bool,
    event_idx: bool,
    queue_size_log: u8,
    limit: Option<Limit>,
    requests: Vec<Request>,
}

/// Token buckets that fill within milliseconds: a run is not to wait.
#[derive(Arbitrary, Debug, Clone, Copy)]
struct Limit {
    bandwidth: Option<(u16, u8)>,
    ops: Option<(u8, u8)>,
}

impl From<Limit> for RateLimiterConfig {
    fn from(limit: Limit) -> Self {
        let bucket = |size: u64, refill_time: u8| {
            let (refill_time, one_time_burst) =
                (u64::from(refill_time % 4), size.is_multiple_of(3).then_some(size));
            TokenBucketConfig { size, refill_time, one_time_burst }
        };
        Self {
            bandwidth: limit.bandwidth.map(|(size, time)| bucket(u64::from(size), time)),
            ops: limit.ops.map(|(size, time)| bucket(u64::from(size), time)),
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Request {
    /// A header with data in pieces, mostly as it should be.
    Formed {
        kind: u8,
        sector: u64,
        split: u8,
        pieces: Vec<Piece>,
        status: Place,
        indirect: bool,
    },
    Queue(driver::Step),
    Reset,
    Limit(Limit),
    /// To the other image, to the same one, or to what is no disk.
    Swap(u8),
}

fuzz_target!(|input: Input| {
    let path = format!("/dev/shm/rvmm-fuzz-block-{}", std::process::id());
    let contents: Vec<u8> = (0..SECTORS * 512).map(|at| (at / 512) as u8).collect();
    let other = format!("{path}-other");
    fs::write(&path, &contents).unwrap();
    fs::write(&other, &contents[..contents.len() / 2]).unwrap();
    let device = BlockDevice::open(&BlockConfig {
        drive_id: "fuzz".into(),
        is_root_device: false,
        path_on_host: Some(path.clone().into()),
        is_read_only: input.read_only,
        partuuid: None,
        cache_type: CacheType::Writeback,
        rate_limiter: input.limit.map(RateLimiterConfig::from),
        io_engine: Some(if input.uring { IoEngine::Async } else { IoEngine::Sync }),
        socket: None,
        direct: false,
    });
    let device = Arc::new(Mutex::new(device.unwrap()));
    let mut harness = Harness::behind(driver::transport(input.pci), device.clone());
    let features = FLUSH | if input.event_idx { EVENT_IDX } else { 0 };
    let queue_size = 1 << (input.queue_size_log % 9);
    harness.start(features, queue_size);

    for request in input.requests.into_iter().take(64) {
        match request {
            Request::Formed { kind, sector, split, pieces, status, indirect } => {
                let header =
                    [&u32::from(kind % 16).to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
                let split = u32::from(split % 17);
                let at = 2 << 20;
                vm_memory::Bytes::write_slice(harness.memory(), &header, vm_memory::GuestAddress(at))
                    .unwrap();
                let mut buffers =
                    vec![Buffer::readable(at, split), Buffer::readable(at + u64::from(split), 16 - split)];
                buffers.extend(pieces.into_iter().take(20).map(Piece::buffer));
                buffers.push(Buffer::writable(status.address(), 1));
                driver::add_chain(&mut harness, 0, &buffers, indirect);
            }
            Request::Queue(step) => drop(step.take(&mut harness, 1)),
            Request::Reset => harness.start(features, queue_size),
            Request::Limit(limit) => device.lock().unwrap().set_rate_limiter(&limit.into()),
            Request::Swap(target) => {
                let target = [&path, &other, "/dev/null", "/nowhere"][usize::from(target % 4)];
                let result = device.lock().unwrap().swap(target.as_ref());
                assert_eq!(result.is_ok(), target.starts_with("/dev/shm"), "{target}: {result:?}");
            }
        }
    }
    let none = TokenBucketConfig { size: 0, refill_time: 0, one_time_burst: None };
    let no_limits = RateLimiterConfig { bandwidth: Some(none.clone()), ops: Some(none) };
    device.lock().unwrap().set_rate_limiter(&no_limits);
    harness.kick(0);

    harness.start(features, 16);
    assert!(!harness.needs_reset());
    let (header, status) = (harness.place(&[0; 16]), harness.allocate(1, 0xee));
    let data = harness.allocate(512, 0xee);
    harness.add_chain(
        0,
        &[Buffer::readable(header, 16), Buffer::writable(data, 512), Buffer::writable(status, 1)],
    );
    harness.kick(0);
    harness.wait_used(0, 1);
    assert_eq!(harness.fetch(status, 1), [0]);
    drop((harness, device));

    for (path, len) in [(path, contents.len()), (other, contents.len() / 2)] {
        let file = File::open(&path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len as u64);
        if input.read_only {
            let mut after = vec![0; len];
            file.read_exact_at(&mut after, 0).unwrap();
            assert!(after == contents[..len], "a read-only image was written");
        }
        fs::remove_file(&path).unwrap();
    }
});
