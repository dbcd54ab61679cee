//! `struct virtio_blk_config` (virtio 1.3, 5.2.4), as far as the features that are offered go.

use super::request::{MAX_DISCARD_SECTORS, MAX_SEGMENT_BYTES, MAX_WRITE_ZEROES_SECTORS};

/// Bytes up to `unused1`, the last field that a feature of ours defines.
const LEN: usize = 60;
/// The file system of the host works in blocks of 4 KiB: 2^3 sectors.
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;

/// The configuration space: it does not change while the device lives.
#[derive(Debug)]
pub(super) struct ConfigSpace([u8; LEN]);

impl ConfigSpace {
    pub(super) fn new(sectors: u64, segments: u32) -> Self {
        let mut space = [0; LEN];
        let mut put = |offset: usize, bytes: &[u8]| {
            if let Some(field) = space.get_mut(offset..offset + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(0, &sectors.to_le_bytes());
        put(8, &MAX_SEGMENT_BYTES.to_le_bytes()); // size_max
        put(12, &segments.to_le_bytes()); // seg_max
        put(20, &(super::SECTOR_SIZE as u32).to_le_bytes()); // blk_size
        put(24, &[PHYSICAL_BLOCK_EXPONENT, 0]); // physical_block_exp, alignment_offset
        put(26, &(1_u16 << PHYSICAL_BLOCK_EXPONENT).to_le_bytes()); // min_io_size
        put(34, &1_u16.to_le_bytes()); // num_queues
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &1_u32.to_le_bytes()); // max_discard_seg
        put(44, &(1_u32 << PHYSICAL_BLOCK_EXPONENT).to_le_bytes()); // discard_sector_alignment
        put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
        put(52, &1_u32.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
        Self(space)
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
