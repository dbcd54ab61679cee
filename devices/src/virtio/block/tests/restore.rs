//! A disk that is saved in the middle of its work, and restored into another process's device.

use std::path::PathBuf;

use virtio_bindings::virtio_blk::VIRTIO_BLK_T_FLUSH;

use super::*;
use crate::rate_limiter::{RateLimiterConfig, TokenBucketConfig};
use crate::state::StateError;
use crate::virtio::device::DeviceEvent;
use crate::virtio::rng::RngStateV1;
use crate::virtio::state::{DeviceState, VirtioStateV1};

/// What a restored disk is: its driver, and its file.
type Restored = (Harness, File);

impl Disk {
    /// A copy of the disk as it is on the host now.
    fn copy(&self) -> PathBuf {
        let number = self.directory.path().read_dir().unwrap().count();
        let path = self.directory.path().join(format!("copy-{number}.img"));
        std::fs::copy(self.config.path_on_host.as_ref().unwrap(), &path).unwrap();
        path
    }

    /// The VM, restored from `state` with a copy of the disk and a configuration that is `change`d.
    fn restored(
        &self,
        state: &VirtioStateV1,
        change: impl FnOnce(&mut BlockConfig),
    ) -> Result<Restored, StateError> {
        self.restored_of(&self.harness, state, change)
    }

    /// The same of a guest that is in `harness`.
    fn restored_of(
        &self,
        harness: &Harness,
        state: &VirtioStateV1,
        change: impl FnOnce(&mut BlockConfig),
    ) -> Result<Restored, StateError> {
        let path = self.copy();
        let mut config = BlockConfig { path_on_host: Some(path.clone()), ..self.config.clone() };
        change(&mut config);
        let device = BlockDevice::open(&config).unwrap();
        let harness = harness.restored(Arc::new(Mutex::new(device)), state)?;
        Ok((harness, File::open(path).unwrap()))
    }

    /// What is refused about `state`.
    fn refusal(&self, state: &VirtioStateV1) -> String {
        self.restored(state, |_| {}).map(drop).unwrap_err().to_string()
    }
}

/// The state of the disk itself, to be changed.
fn block(state: &mut VirtioStateV1) -> &mut BlockStateV1 {
    match &mut state.device {
        DeviceState::BlockV1(state) => state,
        other => panic!("{other:?}"),
    }
}

/// The chains that are used once `count` of them are, in their order.
fn heads(harness: &mut Harness, count: usize) -> Vec<u32> {
    let mut heads: Vec<u32> = harness.wait_used(0, count).iter().map(|used| used.head).collect();
    heads.sort_unstable();
    heads
}

#[test]
fn requests_under_way_are_done_once_wherever_the_guest_goes_on() {
    for (engine, calls) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)].map(|(at, calls)| (ENGINES[at], calls)) {
        let mut disk = Disk::new(engine);
        let mut expected = Vec::new();
        for number in 0..80 {
            let (kind, data) = if number % 3 == 0 {
                (VIRTIO_BLK_T_FLUSH, Vec::new())
            } else {
                let address = disk.harness.place(&sector(number + 100));
                (VIRTIO_BLK_T_OUT, vec![Buffer::readable(address, 512)])
            };
            let (buffers, status) = disk.buffers(&header(kind, number), &data);
            expected.push((u32::from(disk.harness.add_chain(0, &buffers)), status));
        }
        for _ in 0..calls {
            disk.harness.core().process(DeviceEvent::Queue(0));
        }
        let state = disk.harness.save();
        let (mut restored, copy) = disk.restored(&state, |_| {}).unwrap();
        restored.resume();
        let mut all: Vec<u32> = expected.iter().map(|(head, _)| *head).collect();
        all.sort_unstable();
        // The one that was saved goes on as well, and knows nothing of it.
        disk.harness.kick(0);
        for (harness, file) in [(&mut disk.harness, &disk.file), (&mut restored, &copy)] {
            assert_eq!(heads(harness, 80), all, "{engine:?} after {calls} calls: each once");
            harness.kick(0);
            assert_eq!(harness.take_used(0), []);
            for ((_, status), number) in expected.iter().zip(0_u64..) {
                assert_eq!(harness.fetch(*status, 1), [OK]);
                let mut data = vec![0; 512];
                file.read_exact_at(&mut data, number * SECTOR_SIZE).unwrap();
                assert_eq!(data, sector(if number % 3 == 0 { number } else { number + 100 }));
            }
            assert!(!harness.needs_reset());
        }
    }
}

#[test]
fn requests_that_wait_for_the_limiter_are_served_after_a_restore_with_full_buckets() {
    for engine in ENGINES {
        let ops = Some(TokenBucketConfig { size: 5, refill_time: 3_600_000, one_time_burst: None });
        let mut disk = Disk::with(engine, FLUSH, |config| {
            config.rate_limiter = Some(RateLimiterConfig { bandwidth: None, ops });
        });
        disk.add_reads(12);
        disk.harness.kick(0);
        assert_eq!(heads(&mut disk.harness, 5).len(), 5);
        let state = disk.harness.save();
        let (mut restored, _) = disk.restored(&state, |_| {}).unwrap();
        restored.resume();
        assert_eq!(heads(&mut restored, 5).len(), 5, "{engine:?}");
        let state = restored.save();
        let (mut once_more, _) =
            disk.restored_of(&restored, &state, |config| config.rate_limiter = None).unwrap();
        once_more.resume();
        assert_eq!(heads(&mut once_more, 2).len(), 2);
        assert_eq!(once_more.interrupts(), 2, "one for the restore, one for the requests");
    }
}

#[test]
fn a_disk_that_is_not_what_the_guest_knows_is_refused_with_the_reason() {
    let disk = Disk::new(IoEngine::Sync);
    let state = disk.harness.save();
    let refused = |change: fn(&mut VirtioStateV1), reason: &str| {
        let mut state = state.clone();
        change(&mut state);
        let refusal = disk.refusal(&state);
        assert!(refusal.contains(reason), "{refusal:?} for {reason:?}");
    };
    let size = "the disk had 1049088 bytes when it was saved, and the file has 1048576: give it";
    refused(|state| block(state).sectors += 1, size);
    refused(|state| block(state).sectors = 0, "had 0 bytes");
    refused(|state| block(state).sectors = u64::MAX, "had 9444732965739290426880 bytes");
    refused(|state| block(state).block_size = 0, "no blocks of 0 bytes");
    refused(|state| block(state).block_size = 513, "no blocks of 513 bytes");
    refused(|state| block(state).block_size = 8192, "no blocks of 8192 bytes");
    refused(|state| block(state).features = 1 << 5, "was read-only when it was saved, and is writable now");
    refused(
        |state| state.device = DeviceState::RngV1(RngStateV1 {}),
        "the state is of an entropy device, and this is a block device",
    );
    let error = disk.restored(&state, |config| config.is_read_only = true).map(drop).unwrap_err();
    assert!(error.to_string().contains("was writable when it was saved"), "{error}");
    let error = disk.restored(&state, |config| config.cache_type = CacheType::Unsafe).map(drop).unwrap_err();
    assert!(error.to_string().ends_with("with this configuration: bits 9"), "{error}");
}

#[test]
fn a_change_that_the_guest_has_not_heard_of_is_told_to_its_next_driver() {
    for engine in ENGINES {
        let disk = Disk::new(engine);
        disk.harness.write(virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS, 0);
        let path = disk.config.path_on_host.clone().unwrap();
        disk.device().swap(&path).unwrap();
        let state = disk.harness.save();
        let (mut restored, _) = disk.restored(&state, |_| {}).unwrap();
        assert_eq!(restored.status(), 0);
        restored.start(FLUSH, 256);
        assert_eq!(restored.interrupts(), 1);
        restored.start(FLUSH, 256);
        assert_eq!(restored.interrupts(), 1, "once");
    }
}

#[test]
fn the_guest_keeps_the_blocks_that_it_was_told_of() {
    let disk = Disk::new(IoEngine::Sync);
    let mut state = disk.harness.save();
    block(&mut state).block_size = 4096;
    let (restored, _) = disk.restored(&state, |_| {}).unwrap();
    assert_eq!(restored.config(20, 4), 4096_u32.to_le_bytes());
    assert_eq!(restored.config(0, 8), SECTORS.to_le_bytes());
    assert_eq!(restored.save(), state);
}
