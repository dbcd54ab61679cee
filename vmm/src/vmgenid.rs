//! The VM generation ID: 16 random bytes in guest memory that are others whenever the guest's time forks, so that its kernel
//! takes new random numbers and two clones of a snapshot do not draw the same.
//!
//! A guest finds them by ACPI (`acpi/vmgenid.rs`) and reads them as memory. After a change it is told by an interrupt, which
//! a Generic Event Device turns into a notification of the ACPI device.
//!
//! Microsoft, "Virtual Machine Generation ID"; Linux, drivers/virt/vmgenid.c.

use std::io;
use std::sync::Arc;

use devices::GuestMemory;
use devices::interrupt::Interrupt;
use devices::random;
use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::kvm::irq_line::IrqLine;
use crate::layout;

/// Its size in bytes.
const SIZE: usize = 16;

/// Why there is no new generation.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The host has no random bytes.
    #[error("cannot make a VM generation ID: the host has no random bytes")]
    Random(#[source] io::Error),
    /// The guest's memory ends before its place.
    #[error(
        "the VM generation ID at {:#x} is not in guest memory; give the guest 1M or more",
        layout::VMGENID_START
    )]
    Memory(#[source] GuestMemoryError),
    /// The interrupt cannot be raised.
    #[error("cannot tell the guest of its new VM generation ID")]
    Interrupt(#[source] io::Error),
}

/// Writes a new generation ID: before a guest boots, or goes on from where another went on, too.
///
/// # Errors
/// [`GenerationError`]
pub fn renew(memory: &GuestMemory) -> Result<(), GenerationError> {
    let mut generation = [0; SIZE];
    random::fill(&mut generation).map_err(GenerationError::Random)?;
    memory.write_slice(&generation, GuestAddress(layout::VMGENID_START)).map_err(GenerationError::Memory)
}

/// Tells the guest that its generation ID was renewed. To be called when its interrupt controllers are what they are to be.
///
/// # Errors
/// [`GenerationError::Interrupt`]
pub fn notify(vm: &Arc<VmFd>) -> Result<(), GenerationError> {
    IrqLine::new(vm, layout::VMGENID_GSI).trigger().map_err(GenerationError::Interrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::fixture::memory;

    fn page(memory: &GuestMemory) -> Vec<u8> {
        let mut page = vec![0; (layout::VMGENID_END - layout::VMGENID_START) as usize];
        memory.read_slice(&mut page, GuestAddress(layout::VMGENID_START)).unwrap();
        page
    }

    #[test]
    fn each_generation_is_another_and_alone_in_its_page() {
        let memory = memory(1 << 20);
        renew(&memory).unwrap();
        let first = page(&memory);
        renew(&memory).unwrap();
        let second = page(&memory);
        assert_ne!(first[..SIZE], [0; SIZE]);
        assert_ne!(first[..SIZE], second[..SIZE]);
        assert!(second[SIZE..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn memory_without_room_for_it_is_refused() {
        let error = renew(&memory(0xf_0000)).unwrap_err().to_string();
        assert!(error.contains("1M or more"), "{error}");
    }
}
