//! MSI-X (PCI Local Bus 3.0, 6.8.2): a table of messages, one for each vector, in memory of the function's.
//!
//! # Locks
//! The table's lock is the last that is taken: nothing is called with it held but the sender.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::interrupt::MsiSender;
use crate::lock;
use crate::state::StateError;

/// Capability ID.
pub const CAPABILITY: u8 = 0x11;
/// Most vectors that a function can have.
pub const MAX_VECTORS: u16 = 2048;
/// Bytes of each vector's entry in the table.
pub const ENTRY_SIZE: u64 = 16;

/// Message Control: MSI-X is used.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Message Control: every vector is masked.
const CONTROL_MASK_ALL: u16 = 1 << 14;
/// Vector Control: the vector is masked.
const VECTOR_MASKED: u32 = 1;

/// One vector as the guest wrote it: address (low, high), data, vector control.
#[derive(Clone, Copy, Debug)]
struct Entry {
    words: [u32; 4],
    /// The vector was signalled while it was masked.
    pending: bool,
}

impl Default for Entry {
    fn default() -> Self {
        Self { words: [0, 0, 0, VECTOR_MASKED], pending: false }
    }
}

impl Entry {
    fn masked(&self) -> bool {
        let [.., control] = self.words;
        control & VECTOR_MASKED != 0
    }

    fn send(&self, sender: &dyn MsiSender) -> io::Result<()> {
        let [low, high, data, _] = self.words;
        sender.send(u64::from(high) << 32 | u64::from(low), data)
    }
}

/// A vector as a snapshot keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixEntryV1 {
    /// Where its message goes.
    pub address: u64,
    /// What the message is.
    pub data: u32,
    /// Vector Control.
    pub control: u32,
    /// It was signalled while it was masked.
    pub pending: bool,
}

#[derive(Debug)]
struct Table {
    control: u16,
    entries: Vec<Entry>,
}

impl Table {
    fn masked(&self) -> bool {
        self.control & (CONTROL_ENABLE | CONTROL_MASK_ALL) != CONTROL_ENABLE
    }

    /// Sends what waits and may go now.
    fn send_pending(&mut self, sender: &dyn MsiSender) {
        if self.masked() {
            return;
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.pending && !entry.masked()) {
            entry.pending = false;
            // A message that the host does not take is lost, as one for an interrupt that is nobody's.
            let _ = entry.send(sender);
        }
    }
}

/// The vectors of a function.
pub struct Msix {
    sender: Arc<dyn MsiSender>,
    vectors: u16,
    /// A copy of the bit in `table.control`.
    enabled: AtomicBool,
    table: Mutex<Table>,
}

impl Msix {
    /// `vectors` (1 to [`MAX_VECTORS`]) vectors, all masked, and MSI-X off.
    pub fn new(vectors: u16, sender: Arc<dyn MsiSender>) -> Self {
        let vectors = vectors.clamp(1, MAX_VECTORS);
        let entries = vec![Entry::default(); usize::from(vectors)];
        Self {
            sender,
            vectors,
            enabled: AtomicBool::new(false),
            table: Mutex::new(Table { control: 0, entries }),
        }
    }

    /// What follows the pointer in the capability, for a table and pending bits at these offsets of BAR `bar`.
    pub fn capability(&self, bar: u8, table: u32, pending: u32) -> [u8; 10] {
        let mut body = [0; 10];
        let (control, offsets) = body.split_at_mut(2);
        control.copy_from_slice(&(self.vectors - 1).to_le_bytes());
        let (first, second) = offsets.split_at_mut(4);
        first.copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        second.copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        body
    }

    /// The bits of the capability that a guest can write.
    pub const CAPABILITY_WRITABLE: [u8; 2] = (CONTROL_ENABLE | CONTROL_MASK_ALL).to_le_bytes();

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Whether the driver uses MSI-X.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    /// Follows Message Control, as the guest wrote it.
    pub fn set_control(&self, control: u16) {
        let mut table = lock(&self.table);
        table.control = control;
        self.enabled.store(control & CONTROL_ENABLE != 0, Ordering::SeqCst);
        table.send_pending(&*self.sender);
    }

    /// Sends vector `vector`'s message, or keeps it pending while it is masked. A vector that does not exist is not
    /// signalled.
    ///
    /// # Errors
    /// What the host said when the message could not be handed over.
    pub fn signal(&self, vector: u16) -> io::Result<()> {
        let mut table = lock(&self.table);
        let masked = table.masked();
        let Some(entry) = table.entries.get_mut(usize::from(vector)) else { return Ok(()) };
        if masked || entry.masked() {
            entry.pending = true;
            return Ok(());
        }
        entry.send(&*self.sender)
    }

    /// Forgets what is pending: the function was reset.
    pub fn clear_pending(&self) {
        lock(&self.table).entries.iter_mut().for_each(|entry| entry.pending = false);
    }

    /// The table as a snapshot keeps it; Message Control is in configuration space.
    pub fn save(&self) -> Vec<MsixEntryV1> {
        let Table { control: _, entries } = &*lock(&self.table);
        let save = |Entry { words: [low, high, data, control], pending }: &Entry| MsixEntryV1 {
            address: u64::from(*high) << 32 | u64::from(*low),
            data: *data,
            control: *control,
            pending: *pending,
        };
        entries.iter().map(save).collect()
    }

    /// Takes over a saved table and Message Control. Nothing is sent.
    ///
    /// # Errors
    /// When the table has another length. Nothing has changed then.
    pub fn restore(&self, control: u16, saved: &[MsixEntryV1]) -> Result<(), StateError> {
        let mut table = lock(&self.table);
        let (here, there) = (table.entries.len(), saved.len());
        if here != there {
            return Err(StateError::new(format!(
                "the state has {there} MSI-X vectors, and the function {here}"
            )));
        }
        for (entry, saved) in table.entries.iter_mut().zip(saved) {
            let MsixEntryV1 { address, data, control, pending } = *saved;
            *entry = Entry { words: [address as u32, (address >> 32) as u32, data, control], pending };
        }
        table.control = control;
        self.enabled.store(control & CONTROL_ENABLE != 0, Ordering::SeqCst);
        Ok(())
    }

    /// Reads the table: aligned accesses of 4 or 8 bytes, as the specification asks; any other reads as zeros.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !aligned(offset, data.len()) {
            return;
        }
        let table = lock(&self.table);
        for (word, data) in (offset / 4..).zip(data.chunks_exact_mut(4)) {
            let value = table.entries.get((word / 4) as usize);
            let value = value.and_then(|entry| entry.words.get((word % 4) as usize));
            data.copy_from_slice(&value.copied().unwrap_or_default().to_le_bytes());
        }
    }

    /// Writes the table: aligned accesses of 4 or 8 bytes; any other writes nothing.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        if !aligned(offset, data.len()) {
            return;
        }
        let mut table = lock(&self.table);
        for (word, data) in (offset / 4..).zip(data.chunks_exact(4)) {
            let Ok(data) = <[u8; 4]>::try_from(data) else { continue };
            let entry = table.entries.get_mut((word / 4) as usize);
            if let Some(value) = entry.and_then(|entry| entry.words.get_mut((word % 4) as usize)) {
                *value = u32::from_le_bytes(data);
            }
        }
        table.send_pending(&*self.sender);
    }

    /// Reads the pending bits, at any width.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let table = lock(&self.table);
        for (byte, data) in (offset as usize..).zip(data) {
            let entries = table.entries.iter().skip(byte.saturating_mul(8)).take(8);
            *data = entries.zip(0..).fold(0, |bits, (entry, bit)| bits | u8::from(entry.pending) << bit);
        }
    }
}

fn aligned(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}
