use std::sync::{Arc, Mutex};
use std::time::Duration;

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::device::{DeviceEvent, VirtioDevice};
use crate::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE, REGION_BOUNDARY, Used, VERSION_1};
use crate::virtio::rng::RngStateV1;
use crate::virtio::state::{DeviceState, VirtioStateV1};

const INFLATE: u32 = 0;
const DEFLATE: u32 = 1;
const STATS: u32 = 2;
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const PAGE_POISON: u64 = 1 << 4;
const PAGE_REPORTING: u64 = 1 << 5;
const MEMORY_MIB: u64 = MEMORY_SIZE >> 20;

const NUM_PAGES: u64 = 0;
const ACTUAL: u64 = 4;
const POISON_VAL: u64 = 12;

struct Balloon {
    harness: Harness,
    device: Arc<Mutex<BalloonDevice>>,
}

impl Balloon {
    fn new(config: &BalloonConfig) -> Self {
        let device = Arc::new(Mutex::new(BalloonDevice::new(config, MEMORY_MIB).unwrap()));
        Self { harness: Harness::with_shared(device.clone()), device }
    }

    fn started(features: u64) -> Self {
        let reporting = features & PAGE_REPORTING != 0;
        let mut balloon =
            Self::new(&BalloonConfig { free_page_reporting: reporting, ..BalloonConfig::default() });
        balloon.harness.start(features, 128);
        balloon
    }

    fn device(&self) -> std::sync::MutexGuard<'_, BalloonDevice> {
        self.device.lock().unwrap()
    }

    /// Puts `pages` into the balloon.
    fn inflate(&mut self, pages: &[u32]) -> Vec<Used> {
        let list: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        let address = self.harness.place(&list);
        self.harness.add_chain(INFLATE, &[Buffer::readable(address, list.len() as u32)]);
        self.harness.kick(INFLATE);
        self.harness.take_used(INFLATE)
    }

    fn fill(&self, address: u64, len: usize) {
        self.harness.memory().write_slice(&vec![0xaa; len], GuestAddress(address)).unwrap();
    }

    fn byte(&self, address: u64) -> u8 {
        self.harness.memory().read_obj(GuestAddress(address)).unwrap()
    }

    fn config(&self, field: u64) -> u32 {
        u32::from_le_bytes(self.harness.config(field, 4).try_into().unwrap())
    }

    fn write_config(&self, field: u64, value: u32) {
        self.harness.write(virtio_bindings::virtio_mmio::VIRTIO_MMIO_CONFIG + field as u32, value);
    }
}

#[test]
fn pages_in_the_balloon_are_dropped_and_their_neighbours_are_not() {
    let mut balloon = Balloon::started(0);
    balloon.fill(0x20_0000, 0x8000);
    let used = balloon.inflate(&[0x203, 0x201, 0x202, 0x206]);
    assert_eq!((used.len(), used[0].len), (1, 0));
    let dropped = (0..8).filter(|page| balloon.byte(0x20_0000 + page * 0x1000) == 0);
    assert_eq!(dropped.collect::<Vec<_>>(), [1, 2, 3, 6]);
    assert_eq!(balloon.harness.interrupts(), 1);
    let metrics = balloon.device().metrics();
    assert_eq!((metrics.inflations.get(), metrics.inflated_pages.get()), (1, 4));
    assert_eq!((metrics.discarded_bytes.get(), metrics.ignored_pages.get()), (4 * PAGE_SIZE, 0));
}

#[test]
fn a_page_list_may_be_scattered_and_a_run_may_cross_host_mappings() {
    let mut balloon = Balloon::started(0);
    let boundary = (REGION_BOUNDARY / PAGE_SIZE) as u32;
    balloon.fill(REGION_BOUNDARY - 0x1000, 0x2000);
    let list: Vec<u8> = [boundary - 1, boundary].iter().flat_map(|page| page.to_le_bytes()).collect();
    let address = balloon.harness.place(&list);
    let pieces = [Buffer::readable(address, 3), Buffer::readable(address + 3, 5)];
    balloon.harness.add_chain(INFLATE, &pieces);
    balloon.harness.kick(INFLATE);
    assert_eq!([balloon.byte(REGION_BOUNDARY - 1), balloon.byte(REGION_BOUNDARY)], [0, 0]);
}

#[test]
fn pages_outside_of_memory_or_named_twice_are_counted_and_ignored() {
    let mut balloon = Balloon::started(0);
    balloon.fill(0x20_0000, 0x2000);
    let beyond = (MEMORY_SIZE / PAGE_SIZE) as u32;
    assert_eq!(balloon.inflate(&[0x200, beyond, u32::MAX, 0x200, beyond - 1]).len(), 1);
    assert_eq!([balloon.byte(0x20_0000), balloon.byte(0x20_1000)], [0, 0xaa]);
    let metrics = balloon.device().metrics();
    assert_eq!((metrics.ignored_pages.get(), metrics.discarded_bytes.get()), (3, 2 * PAGE_SIZE));
    assert!(!balloon.harness.needs_reset());
}

#[test]
fn a_list_that_is_not_in_memory_or_is_too_long_does_no_harm() {
    let mut balloon = Balloon::started(0);
    balloon.fill(0x50_0000, 0x1000);
    balloon.harness.add_chain(INFLATE, &[Buffer::readable(MEMORY_SIZE - 4, 400)]);
    balloon.harness.add_chain(INFLATE, &[Buffer::readable(0x40_0000, 3)]);
    balloon.harness.add_chain(INFLATE, &[Buffer::writable(0x40_0000, 400)]);
    balloon.harness.kick(INFLATE);
    assert_eq!(balloon.harness.take_used(INFLATE).len(), 3);
    assert_eq!(balloon.device().metrics().ignored_pages.get(), 100);
    // The last page of a list that is one too long.
    let mut pages = vec![0x300; MAX_PAGES_PER_CHAIN];
    pages.push(0x500);
    assert_eq!(balloon.inflate(&pages).len(), 1);
    assert_eq!(balloon.byte(0x50_0000), 0xaa);
    assert_eq!(balloon.device().metrics().ignored_pages.get(), 100 + MAX_PAGES_PER_CHAIN as u64);
    assert!(!balloon.harness.needs_reset());
}

#[test]
fn pages_leave_the_balloon_and_a_full_queue_is_answered_in_shares() {
    let mut balloon = Balloon::started(0);
    let list = balloon.harness.allocate(1024, 0);
    for _ in 0..128 {
        balloon.harness.add_chain(DEFLATE, &[Buffer::readable(list, 1024)]);
    }
    balloon.harness.kick(DEFLATE);
    assert_eq!(balloon.harness.take_used(DEFLATE).len(), 128);
    let metrics = balloon.device().metrics();
    assert_eq!((metrics.deflations.get(), metrics.deflated_pages.get()), (128, 128 * 256));
}

#[test]
fn the_target_is_what_was_asked_for_and_a_change_is_told_to_the_guest() {
    let mut balloon = Balloon::new(&BalloonConfig { amount_mib: 2, ..BalloonConfig::default() });
    assert_eq!(balloon.config(NUM_PAGES), 512);
    balloon.device().set_target(3).unwrap();
    assert_eq!((balloon.config(NUM_PAGES), balloon.harness.interrupts()), (768, 0));
    balloon.harness.start(0, 16);
    let generation = balloon.harness.core().config_generation();
    balloon.device().set_target(4).unwrap();
    assert_eq!((balloon.config(NUM_PAGES), balloon.harness.interrupts()), (1024, 1));
    assert_ne!(balloon.harness.core().config_generation(), generation);
    assert_eq!(balloon.device().config().amount_mib, 4);
    let error = balloon.device().set_target(9).unwrap_err().to_string();
    assert_eq!(error, "a balloon of 9 MiB: the guest has 8 MiB of memory in all");
    assert_eq!(balloon.config(NUM_PAGES), 1024);
}

#[test]
fn the_guest_writes_its_own_fields_and_no_others() {
    let balloon = Balloon::started(0);
    balloon.write_config(ACTUAL, 256);
    balloon.write_config(NUM_PAGES, 77);
    balloon.write_config(POISON_VAL, 5);
    let fields = [NUM_PAGES, ACTUAL, 8, POISON_VAL, 16].map(|field| balloon.config(field));
    assert_eq!(fields, [0, 256, 0, 5, 0]);
    balloon.device().set_polling_interval(1).unwrap();
    let statistics = balloon.device().statistics().unwrap();
    assert_eq!((statistics.actual_pages, statistics.actual_mib), (256, 1));
}

fn entry(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

#[test]
fn statistics_are_taken_and_asked_for_again_when_the_time_has_come() {
    let config = BalloonConfig { stats_polling_interval_s: 1, amount_mib: 1, ..BalloonConfig::default() };
    let mut balloon = Balloon::new(&config);
    balloon.harness.start(STATS_VQ, 16);
    let text = [entry(4, 1000), entry(0, 7), entry(99, 1), entry(15, 3), vec![5, 0, 1]].concat();
    let buffer = balloon.harness.place(&text);
    balloon.harness.add_chain(STATS, &[Buffer::readable(buffer, text.len() as u32)]);
    balloon.harness.kick(STATS);
    assert!(balloon.harness.take_used(STATS).is_empty(), "kept until the next statistics are wanted");
    let statistics = balloon.device().statistics().unwrap();
    let expected = BalloonStatistics {
        target_pages: 256,
        target_mib: 1,
        free_memory: Some(1000),
        swap_in: Some(7),
        direct_reclaim: Some(3),
        ..BalloonStatistics::default()
    };
    assert_eq!(statistics, expected);
    assert_eq!(balloon.harness.wait_used(STATS, 1).len(), 1);
    assert_eq!(balloon.harness.interrupts(), 1);
}

#[test]
fn statistics_that_came_before_the_driver_was_ready_are_taken_when_it_is() {
    let mut balloon = Balloon::started(0);
    balloon.harness.negotiate(STATS_VQ | VERSION_1);
    for queue in [INFLATE, DEFLATE, STATS] {
        assert!(balloon.harness.set_up_queue(queue, 16));
    }
    let buffer = balloon.harness.place(&entry(5, 77));
    balloon.harness.add_chain(STATS, &[Buffer::readable(buffer, 10)]);
    balloon.harness.kick(STATS);
    balloon.device().set_polling_interval(1).unwrap();
    assert_eq!(balloon.device().statistics().unwrap().total_memory, None);
    let status = balloon.harness.status();
    balloon.harness.write(VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
    assert!(balloon.harness.run_once(Duration::ZERO));
    assert_eq!(balloon.device().statistics().unwrap().total_memory, Some(77));
    assert_eq!(balloon.harness.wait_used(STATS, 1).len(), 1);
}

#[test]
fn a_second_buffer_for_statistics_sends_the_first_one_back() {
    let mut balloon = Balloon::started(STATS_VQ);
    let buffer = balloon.harness.allocate(10, 0);
    let heads = [0; 3].map(|_| balloon.harness.add_chain(STATS, &[Buffer::readable(buffer, 10)]));
    balloon.harness.kick(STATS);
    let used: Vec<_> = balloon.harness.take_used(STATS).iter().map(|used| used.head).collect();
    assert_eq!(used, [u32::from(heads[0]), u32::from(heads[1])]);
}

#[test]
fn statistics_can_be_turned_off_and_on() {
    let mut balloon = Balloon::started(STATS_VQ);
    assert!(matches!(balloon.device().statistics(), Err(BalloonError::StatisticsOff)));
    let buffer = balloon.harness.allocate(10, 0);
    balloon.harness.add_chain(STATS, &[Buffer::readable(buffer, 10)]);
    balloon.harness.kick(STATS);
    balloon.device().set_polling_interval(1).unwrap();
    balloon.device().set_polling_interval(0).unwrap();
    assert!(!balloon.harness.run_once(Duration::from_millis(1100)), "off");
    balloon.device().set_polling_interval(1).unwrap();
    assert_eq!(balloon.harness.wait_used(STATS, 1).len(), 1);
    balloon.harness.negotiate(0);
    assert!(!balloon.harness.run_once(Duration::from_millis(1100)), "no timer after a reset");
}

#[test]
fn a_field_of_the_statistics_that_the_guest_has_not_told_is_absent() {
    let json = serde_json::to_value(BalloonStatistics { oom_kill: Some(0), ..Default::default() }).unwrap();
    let sizes = serde_json::json!(
        {"target_pages": 0, "actual_pages": 0, "target_mib": 0, "actual_mib": 0, "oom_kill": 0}
    );
    assert_eq!(json, sizes);
}

#[test]
fn reported_pages_are_dropped_in_whichever_queue_the_driver_has_for_them() {
    // By the specification; as Linux counts; as it counts without statistics.
    for (queue, features) in [(4, STATS_VQ), (3, STATS_VQ), (2, 0)] {
        let mut balloon = Balloon::started(features | PAGE_REPORTING);
        balloon.fill(0x20_0000, 0x4000);
        let pieces = [Buffer::writable(0x20_0000, 0x1000), Buffer::writable(0x20_1800, 0x2000)];
        balloon.harness.add_chain(queue, &pieces);
        balloon.harness.kick(queue);
        assert_eq!(balloon.harness.take_used(queue).len(), 1);
        let bytes = [0, 0x1000, 0x2000, 0x3000].map(|offset| balloon.byte(0x20_0000 + offset));
        assert_eq!(bytes, [0, 0xaa, 0, 0xaa], "only whole pages");
        assert_eq!(balloon.device().metrics().reported_bytes.get(), 0x2000);
    }
}

#[test]
fn reports_from_everywhere_do_no_harm() {
    let mut balloon = Balloon::started(PAGE_REPORTING);
    balloon.harness.add_chain(3, &[Buffer::writable(u64::MAX - 10, 1 << 20)]);
    balloon.harness.add_chain(3, &[Buffer::writable(MEMORY_SIZE, 1 << 31), Buffer::writable(1 << 40, 9)]);
    balloon.harness.add_chain(3, &[Buffer::readable(0x20_0000, 0x1000)]);
    balloon.harness.kick(3);
    assert!(!balloon.harness.needs_reset());
    assert_eq!(balloon.harness.take_used(3).len(), 3);
    assert_eq!(balloon.device().metrics().discarded_bytes.get(), 0);
    // Past the limit of one report.
    let last = 0x50_0000;
    balloon.fill(last, 0x1000);
    let huge = MAX_REPORTED_BYTES_PER_CHAIN as u32;
    balloon.harness.add_chain(3, &[Buffer::writable(1 << 40, huge), Buffer::writable(last, 0x1000)]);
    balloon.harness.kick(3);
    assert_eq!((balloon.harness.take_used(3).len(), balloon.byte(last)), (1, 0xaa));
}

#[test]
fn large_reports_are_taken_in_shares() {
    let mut balloon = Balloon::started(PAGE_REPORTING);
    for _ in 0..4 {
        balloon.harness.add_chain(3, &[Buffer::writable(0x20_0000, MAX_REPORTED_BYTES_PER_CHAIN as u32)]);
    }
    balloon.harness.core().process(DeviceEvent::Queue(3));
    assert_eq!(balloon.harness.take_used(3).len(), 1, "1 GiB in a call");
    assert_eq!(balloon.harness.wait_used(3, 3).len(), 3, "the rest comes of itself");
}

#[test]
fn a_guest_that_looks_for_a_pattern_in_its_free_pages_keeps_them() {
    let mut balloon = Balloon::started(PAGE_REPORTING | PAGE_POISON);
    balloon.write_config(POISON_VAL, 0xaaaa_aaaa);
    balloon.fill(0x20_0000, 0x1000);
    balloon.harness.add_chain(3, &[Buffer::writable(0x20_0000, 0x1000)]);
    balloon.harness.kick(3);
    assert_eq!((balloon.harness.take_used(3).len(), balloon.byte(0x20_0000)), (1, 0xaa));
}

#[test]
fn features_and_queues_are_those_of_the_configuration() {
    let features = |config: &BalloonConfig| Balloon::new(config).device().features();
    let plain = features(&BalloonConfig::default());
    assert_eq!(plain & (STATS_VQ | DEFLATE_ON_OOM | PAGE_REPORTING), STATS_VQ);
    let oom = BalloonConfig { deflate_on_oom: true, ..BalloonConfig::default() };
    assert_ne!(features(&oom) & DEFLATE_ON_OOM, 0);
    let reporting = BalloonConfig { free_page_reporting: true, ..BalloonConfig::default() };
    assert_ne!(features(&reporting) & PAGE_REPORTING, 0);
    assert_eq!(Balloon::new(&reporting).device().queue_max_sizes().len(), 5);
}

impl Balloon {
    /// This guest once more, as it is restored from `state` into a balloon of `config`. Its queues have not been kicked yet.
    fn restored(&self, config: &BalloonConfig, state: &VirtioStateV1) -> Self {
        let device = Arc::new(Mutex::new(BalloonDevice::new(config, MEMORY_MIB).unwrap()));
        Self { harness: self.harness.restored(device.clone(), state).unwrap(), device }
    }
}

#[test]
fn a_restored_balloon_has_what_the_driver_wrote() {
    let balloon = Balloon::started(PAGE_REPORTING | PAGE_POISON);
    balloon.write_config(ACTUAL, 300);
    balloon.write_config(POISON_VAL, 0xaaaa_aaaa);
    balloon.fill(0x20_0000, 0x1000);
    let config = BalloonConfig { free_page_reporting: true, ..BalloonConfig::default() };
    let mut restored = balloon.restored(&config, &balloon.harness.save());
    restored.harness.resume();
    assert_eq!([ACTUAL, POISON_VAL].map(|field| restored.config(field)), [300, 0xaaaa_aaaa]);
    restored.harness.add_chain(3, &[Buffer::writable(0x20_0000, 0x1000)]);
    restored.harness.kick(3);
    assert_eq!(
        (restored.harness.take_used(3).len(), restored.byte(0x20_0000)),
        (1, 0xaa),
        "the pattern stays"
    );
}

#[test]
fn the_target_of_the_configuration_counts_and_a_restored_guest_is_told_of_another() {
    let mut balloon = Balloon::new(&BalloonConfig { amount_mib: 2, ..BalloonConfig::default() });
    balloon.harness.start(0, 16);
    let state = balloon.harness.save();
    let restored = |amount_mib| {
        let restored = balloon.restored(&BalloonConfig { amount_mib, ..BalloonConfig::default() }, &state);
        (restored.config(NUM_PAGES), restored.harness.interrupts())
    };
    assert_eq!(restored(2), (512, 0));
    assert_eq!(restored(3), (768, 1));
}

#[test]
fn a_buffer_of_statistics_that_was_held_is_taken_again_and_given_back_once() {
    let config = BalloonConfig { stats_polling_interval_s: 1, ..BalloonConfig::default() };
    let mut balloon = Balloon::new(&config);
    balloon.harness.start(STATS_VQ, 16);
    let buffer = balloon.harness.place(&entry(4, 1000));
    balloon.harness.add_chain(STATS, &[Buffer::readable(buffer, 10)]);
    balloon.harness.kick(STATS);
    let mut restored = balloon.restored(&config, &balloon.harness.save());
    restored.harness.resume();
    for balloon in [&mut balloon, &mut restored] {
        assert_eq!(balloon.device().statistics().unwrap().free_memory, Some(1000));
        assert_eq!(balloon.harness.wait_used(STATS, 1).len(), 1);
        assert!(!balloon.harness.needs_reset());
    }
    // Once it was given back it is the driver's.
    let mut later = restored.restored(&config, &restored.harness.save());
    later.harness.resume();
    assert_eq!(later.device().statistics().unwrap().free_memory, None);
    assert!(later.harness.take_used(STATS).is_empty());
}

#[test]
fn any_numbers_of_a_state_are_harmless_and_the_state_of_another_device_is_refused() {
    let balloon = Balloon::started(0);
    let mut state = balloon.harness.save();
    let extreme = BalloonStateV1 { num_pages: u32::MAX, actual: u32::MAX, poison_val: u32::MAX };
    state.device = DeviceState::BalloonV1(extreme);
    let mut restored = balloon.restored(&BalloonConfig::default(), &state);
    restored.harness.resume();
    assert_eq!([NUM_PAGES, ACTUAL].map(|field| restored.config(field)), [0, u32::MAX]);
    assert_eq!(restored.inflate(&[0x200]).len(), 1);
    let mut device = BalloonDevice::new(&BalloonConfig::default(), MEMORY_MIB).unwrap();
    let error = device.restore(&DeviceState::RngV1(RngStateV1 {})).unwrap_err().to_string();
    assert_eq!(error, "the state is of an entropy device, and this is a balloon");
}
