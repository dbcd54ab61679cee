//! `struct virtio_balloon_config` (virtio 1.3, 5.5.4).

const LEN: usize = 16;
/// Pages that the driver is to have in the balloon.
const NUM_PAGES: usize = 0;
/// Pages that it has; the driver writes it.
const ACTUAL: usize = 4;
/// What the driver fills free pages with; the driver writes it.
const POISON_VAL: usize = 12;

/// The configuration space.
#[derive(Debug, Default)]
pub(super) struct ConfigSpace([u8; LEN]);

impl ConfigSpace {
    fn get(&self, field: usize) -> u32 {
        let bytes = self.0.get(field..).and_then(<[u8]>::first_chunk::<4>);
        bytes.copied().map_or(0, u32::from_le_bytes)
    }

    fn set(&mut self, field: usize, value: u32) {
        if let Some(bytes) = self.0.get_mut(field..).and_then(<[u8]>::first_chunk_mut::<4>) {
            *bytes = value.to_le_bytes();
        }
    }

    pub(super) fn num_pages(&self) -> u32 {
        self.get(NUM_PAGES)
    }

    pub(super) fn set_num_pages(&mut self, pages: u32) {
        self.set(NUM_PAGES, pages);
    }

    pub(super) fn actual(&self) -> u32 {
        self.get(ACTUAL)
    }

    pub(super) fn poison_val(&self) -> u32 {
        self.get(POISON_VAL)
    }

    /// Has what a driver wrote before it was saved.
    pub(super) fn restore(&mut self, actual: u32, poison_val: u32) {
        self.set(ACTUAL, actual);
        self.set(POISON_VAL, poison_val);
    }

    /// Forgets what the driver wrote.
    pub(super) fn reset(&mut self) {
        self.set(ACTUAL, 0);
        self.set(POISON_VAL, 0);
    }

    /// Fills `data` from `offset`; what lies past the end reads as zeroes.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let fields = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        for (byte, field) in data.iter_mut().zip(fields) {
            *byte = *field;
        }
    }

    /// Takes from `data` at `offset` what lies in the fields that the driver writes.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(offset) = usize::try_from(offset) else { return };
        let fields = self.0.iter_mut().enumerate().skip(offset);
        for ((at, field), byte) in fields.zip(data) {
            if (ACTUAL..ACTUAL + 4).contains(&at) || (POISON_VAL..POISON_VAL + 4).contains(&at) {
                *field = *byte;
            }
        }
    }
}
