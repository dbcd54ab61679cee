//! A driver that puts anything into the queues of a balloon: pages that do not exist, lists that are none, reports of
//! everything, statistics that lie.
//!
//! Holds: no panic and no hang; no page is given back to the host that nobody named; and after a reset the device works.
#![no_main]

mod driver;

use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::virtio::balloon::{BalloonConfig, BalloonDevice};
use devices::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE};
use libfuzzer_sys::fuzz_target;

const QUEUES: u32 = 5;
const STATS_VQ: u64 = 1 << 1;
const PAGE_POISON: u64 = 1 << 4;
const PAGE_REPORTING: u64 = 1 << 5;
const EVENT_IDX: u64 = 1 << 29;

#[derive(Arbitrary, Debug)]
struct Input {
    pci: bool,
    statistics: bool,
    poison: bool,
    reporting: bool,
    event_idx: bool,
    queue_size_log: u8,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    Queue(driver::Step),
    /// Page numbers in a list, mostly of pages that exist.
    Pages {
        deflate: bool,
        pages: Vec<u32>,
    },
    Config {
        offset: u8,
        value: u32,
    },
    Target(u32),
    Reset,
}

fuzz_target!(|input: Input| {
    let config = BalloonConfig { free_page_reporting: true, deflate_on_oom: true, ..Default::default() };
    let device = Arc::new(Mutex::new(BalloonDevice::new(&config, MEMORY_SIZE >> 20).unwrap()));
    let mut harness = Harness::behind(driver::transport(input.pci), device.clone());
    let mut features = 0;
    for (wanted, feature) in [
        (input.statistics, STATS_VQ),
        (input.poison, PAGE_POISON),
        (input.reporting, PAGE_REPORTING),
        (input.event_idx, EVENT_IDX),
    ] {
        features |= if wanted { feature } else { 0 };
    }
    let queue_size = 1 << (input.queue_size_log % 8);
    harness.start(features, queue_size);

    for action in input.actions.into_iter().take(64) {
        match action {
            Action::Queue(step) => drop(step.take(&mut harness, QUEUES)),
            Action::Pages { deflate, pages } => {
                // Not the rings, and a little past the end.
                let list = pages.iter().take(64).flat_map(|page| (0x200 + page % 0x610).to_le_bytes());
                let list: Vec<u8> = list.collect();
                let at = 3 << 20;
                vm_memory::Bytes::write_slice(harness.memory(), &list, vm_memory::GuestAddress(at)).unwrap();
                harness.add_chain(u32::from(deflate), &[Buffer::readable(at, list.len() as u32)]);
                harness.kick(u32::from(deflate));
            }
            Action::Config { offset, value } => {
                harness.write_config(u64::from(offset & !3), &value.to_le_bytes());
            }
            Action::Target(mib) => drop(device.lock().unwrap().set_target(mib)),
            Action::Reset => harness.start(features, queue_size),
        }
    }
    (0..QUEUES).for_each(|queue| harness.kick(queue));

    harness.start(features, 16);
    assert!(!harness.needs_reset());
    vm_memory::Bytes::write_slice(harness.memory(), &[0xaa; 0x3000], vm_memory::GuestAddress(7 << 20))
        .unwrap();
    vm_memory::Bytes::write_slice(
        harness.memory(),
        &0x701_u32.to_le_bytes(),
        vm_memory::GuestAddress(6 << 20),
    )
    .unwrap();
    harness.add_chain(0, &[Buffer::readable(6 << 20, 4)]);
    harness.kick(0);
    harness.wait_used(0, 1);
    let first_bytes = [0, 0x1000, 0x2000].map(|offset| harness.fetch((7 << 20) + offset, 1)[0]);
    assert_eq!(first_bytes, [0xaa, 0, 0xaa]);
});
