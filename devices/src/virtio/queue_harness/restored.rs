//! Saving a device in the middle of its work, and the same guest with another in its place.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::{Harness, Registers, TransportKind};
use crate::GuestMemory;
use crate::state::StateError;
use crate::virtio::device::SharedDevice;
use crate::virtio::state::VirtioStateV1;
use crate::virtio::transport::Transport;

const PAGE_LEN: usize = 4096;
/// An entry of `/proc/self/pagemap` of a page that is in memory (bit 63) or swapped out (bit 62).
const PAGE_IS_THERE: u64 = 0b11 << 62;

/// The pages of `memory` that somebody has touched, a few dozen of thousands as a rule: reading all of them would take a
/// page fault each.
fn touched(memory: &GuestMemory) -> Vec<GuestAddress> {
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let mut touched = Vec::new();
    for region in memory.iter() {
        let mut entries = vec![0; region.len() as usize / PAGE_LEN * 8];
        pagemap.read_exact_at(&mut entries, region.as_ptr() as u64 / PAGE_LEN as u64 * 8).unwrap();
        let entries = entries.as_chunks().0.iter().map(|entry| u64::from_ne_bytes(*entry));
        let pages = (region.start_addr().0..).step_by(PAGE_LEN).map(GuestAddress);
        touched
            .extend(pages.zip(entries).filter(|(_, entry)| entry & PAGE_IS_THERE != 0).map(|(page, _)| page));
    }
    touched
}

impl Harness {
    fn saved_transport(&self) -> &dyn Transport {
        match &self.registers {
            Registers::Mmio { transport, .. } => transport,
            Registers::Pci(registers) => registers.function(),
        }
    }

    /// What a snapshot keeps of the device, which goes on.
    pub fn save(&self) -> VirtioStateV1 {
        self.core.drain();
        let state = self.save_stopped();
        self.core.go_on();
        state
    }

    /// What a snapshot keeps of the device, which was drained.
    pub fn save_stopped(&self) -> VirtioStateV1 {
        self.saved_transport().save().unwrap()
    }

    /// The guest once more, as it is restored from `state`: a copy of its memory, the same driver, and `device` in the
    /// place of the saved one. It has not been kicked yet.
    ///
    /// # Errors
    /// When the device refuses the state.
    pub fn restored(&self, device: SharedDevice, state: &VirtioStateV1) -> Result<Self, StateError> {
        let transport = match &self.registers {
            Registers::Mmio { .. } => TransportKind::Mmio,
            Registers::Pci(_) => TransportKind::Pci,
        };
        let mut restored = Self::behind(transport, device);
        let mut page = [0; PAGE_LEN];
        for address in touched(&self.memory) {
            self.memory.read_slice(&mut page, address).unwrap();
            restored.memory.write_slice(&page, address).unwrap();
        }
        restored.queues.clone_from(&self.queues);
        restored.next_buffer = self.next_buffer;
        restored.saved_transport().restore(state)?;
        Ok(restored)
    }

    /// Has the restored device, and its driver, look at its queues, and lets it do what it can do at once.
    pub fn resume(&mut self) {
        self.core.kick();
        while self.run_once(Duration::ZERO) {}
    }
}
