//! Saving a device in the middle of its work, and the same guest with another in its place.

use std::time::Duration;

use vm_memory::{Bytes as _, GuestAddress};

use super::{Harness, MEMORY_SIZE, Registers, TransportKind};
use crate::state::StateError;
use crate::virtio::device::SharedDevice;
use crate::virtio::state::VirtioStateV1;
use crate::virtio::transport::Transport;

const PAGE_LEN: usize = 4096;

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
        for address in (0..MEMORY_SIZE).step_by(PAGE_LEN).map(GuestAddress) {
            self.memory.read_slice(&mut page, address).unwrap();
            // What was never touched, most of it, stays so.
            if page != [0; PAGE_LEN] {
                restored.memory.write_slice(&page, address).unwrap();
            }
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
