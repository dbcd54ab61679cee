//! What a snapshot keeps of a disk: what the guest knows of it, which the file that is behind it afterwards must be, too.
//!
//! The rate limiter begins with full buckets in a restored device.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_RO;

use super::device::BlockDevice;
use super::layout::{ConfigSpace, PHYSICAL_BLOCK_SIZE};
use super::request::{Limits, SECTOR_SIZE};
use crate::state::StateError;

/// The device's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStateV1 {
    /// Size of the disk in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// Features that the guest was offered.
    pub features: u64,
    /// The configuration space changed while no driver was there that could be told.
    pub config_changed: bool,
}

impl BlockDevice {
    pub(super) fn saved(&self) -> BlockStateV1 {
        let Self {
            features,
            limits: Limits { sectors, block_size, access: _, flush: _ },
            config_changed,
            // The configuration's, or the host's.
            image: _,
            purpose: _,
            drive_id: _,
            io_engine: _,
            uring_refused: _,
            completion_event: _,
            limiter: _,
            metrics: _,
            // Made of the above.
            config_space: _,
            // Nothing is under way, and the queue is saved elsewhere.
            active: _,
        } = self;
        BlockStateV1 {
            sectors: *sectors,
            block_size: *block_size,
            features: *features,
            config_changed: *config_changed,
        }
    }

    pub(super) fn take_over(&mut self, state: &BlockStateV1) -> Result<(), StateError> {
        let BlockStateV1 { sectors, block_size, features, config_changed } = *state;
        let refused = |message| Err(StateError::new(message));
        if sectors != self.limits.sectors {
            let (saved, here) = (u128::from(sectors) * u128::from(SECTOR_SIZE), self.size());
            return refused(format!(
                "the disk had {saved} bytes when it was saved, and the file has {here}: give it the file or the copy that \
                 belongs to the snapshot"
            ));
        }
        let read_only = |features: u64| features & 1 << VIRTIO_BLK_F_RO != 0;
        if read_only(features) != read_only(self.features) {
            let how = |features| if read_only(features) { "read-only" } else { "writable" };
            return refused(format!(
                "the disk was {} when it was saved, and is {} now: the guest counts on it",
                how(features),
                how(self.features)
            ));
        }
        let possible = SECTOR_SIZE..=PHYSICAL_BLOCK_SIZE.into();
        if !block_size.is_power_of_two() || !possible.contains(&block_size.into()) {
            return refused(format!("a disk has no blocks of {block_size} bytes"));
        }
        self.limits.block_size = block_size;
        self.config_space = ConfigSpace::new(sectors, block_size);
        self.config_changed = config_changed;
        Ok(())
    }
}
