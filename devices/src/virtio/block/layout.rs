//! `struct virtio_blk_config` (virtio 1.3, 5.2.4), as far as the features that are offered go.

use super::request::{MAX_DISCARD_SECTORS, MAX_SEGMENTS, MAX_WRITE_ZEROES_SECTORS};

/// Bytes up to `unused1`, the last field that a feature of ours defines.
const LEN: usize = 60;
/// The file system of the host works in blocks of 4 KiB.
pub(super) const PHYSICAL_BLOCK_SIZE: u32 = 4096;

/// The configuration space. The capacity changes when the disk is swapped, nothing else does while the device lives.
#[derive(Debug)]
pub(super) struct ConfigSpace([u8; LEN]);

impl ConfigSpace {
    pub(super) fn new(sectors: u64, block_size: u32) -> Self {
        let exponent = (PHYSICAL_BLOCK_SIZE / block_size.max(1)).checked_ilog2().unwrap_or(0) as u8;
        let mut space = [0; LEN];
        let mut put = |offset: usize, bytes: &[u8]| {
            if let Some(field) = space.get_mut(offset..offset + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(0, &sectors.to_le_bytes());
        put(12, &MAX_SEGMENTS.to_le_bytes()); // seg_max
        put(20, &block_size.to_le_bytes()); // blk_size
        put(24, &[exponent, 0]); // physical_block_exp, alignment_offset
        put(26, &(1_u16 << exponent).to_le_bytes()); // min_io_size, in blocks
        put(34, &1_u16.to_le_bytes()); // num_queues
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &1_u32.to_le_bytes()); // max_discard_seg
        put(44, &(PHYSICAL_BLOCK_SIZE / super::SECTOR_SIZE as u32).to_le_bytes()); // discard_sector_alignment
        put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
        put(52, &1_u32.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
        Self(space)
    }

    pub(super) fn set_capacity(&mut self, sectors: u64) {
        for (field, byte) in self.0.iter_mut().zip(sectors.to_le_bytes()) {
            *field = byte;
        }
    }

    /// Fills `data` from `offset`; what lies past the end reads as zeroes.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let fields = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        for (byte, field) in data.iter_mut().zip(fields) {
            *byte = *field;
        }
    }
}
