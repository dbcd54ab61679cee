//! `struct virtio_console_config` (virtio 1.3, 5.3.4).

/// `cols`, `rows`, `max_nr_ports`, `emerg_wr`.
const LEN: usize = 12;

/// The configuration space: the size of the terminal, and zeroes for features that are not offered.
#[derive(Debug, Default)]
pub(super) struct ConfigSpace([u8; LEN]);

impl ConfigSpace {
    /// Sets the size in characters; whether it is another than before.
    pub(super) fn set_size(&mut self, columns: u16, rows: u16) -> bool {
        let size = (u32::from(rows) << 16 | u32::from(columns)).to_le_bytes();
        let Some(field) = self.0.first_chunk_mut::<4>() else { return false };
        std::mem::replace(field, size) != size
    }

    /// The size in characters: columns and rows.
    pub(super) fn size(&self) -> (u16, u16) {
        let size = self.0.first_chunk::<4>().map_or(0, |field| u32::from_le_bytes(*field));
        (size as u16, (size >> 16) as u16)
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
