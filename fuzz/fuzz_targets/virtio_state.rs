//! A snapshot's state of a virtio device that anybody may have changed: bytes that decode to one, or the state of a device
//! in the middle of its work with some bytes replaced. It is restored into a new device on a copy of the memory.
//!
//! Holds: no panic, no hang, no growth, whether it is refused or not; a device that took it bears what a driver does then;
//! and after a reset the device works.
#![no_main]

mod any_device;
mod driver;
mod in_file;

use arbitrary::Arbitrary;
use devices::pci::{PciFunction, Space};
use devices::virtio::pci_harness::MEMORY_BASE;
use devices::virtio::queue_harness::Harness;
use devices::virtio::state::VirtioStateV1;
use libfuzzer_sys::fuzz_target;

const EVENT_IDX: u64 = 1 << 29;

#[derive(Arbitrary, Debug)]
struct Input {
    kind: any_device::Kind,
    pci: bool,
    event_idx: bool,
    /// What the driver does before.
    before: Vec<driver::Step>,
    file: in_file::InFile,
    /// What the driver does afterwards.
    accesses: Vec<Access>,
    after: Vec<driver::Step>,
}

#[derive(Arbitrary, Debug)]
enum Access {
    /// A register of virtio-mmio, or one of BAR 0 where it was at first.
    Register { offset: u16, value: u32, write: bool },
    /// Configuration space of a PCI function.
    Config { offset: u8, value: u32, write: bool },
}

fn access(harness: &mut Harness, pci: bool, access: &Access) {
    match *access {
        Access::Register { offset, value, write } if pci => {
            let address = u64::from(MEMORY_BASE) + u64::from(offset % 0x4000);
            let function = harness.pci().function();
            if write {
                let _ = function.write(Space::Memory, address, &value.to_le_bytes());
            } else {
                function.read(Space::Memory, address, &mut [0; 4]);
            }
        }
        Access::Register { offset, value, write } => {
            let register = u32::from(offset % 0x108);
            if write {
                harness.write(register, value);
            } else {
                harness.read(register);
            }
        }
        Access::Config { offset, value, write } if pci => {
            let function = harness.pci().function();
            if write {
                let _ = function.write_config(offset.into(), &value.to_le_bytes());
            } else {
                function.read_config(offset.into(), &mut [0; 4]);
            }
        }
        Access::Config { .. } => {}
    }
}

fuzz_target!(|input: Input| {
    let mut harness = Harness::behind(driver::transport(input.pci), input.kind.device(0));
    harness.start(if input.event_idx { EVENT_IDX } else { 0 }, 16);
    let queues = harness.core().queue_count() as u32;
    for step in input.before.into_iter().take(16) {
        step.take(&mut harness, queues);
    }
    let state = harness.save();
    let bytes = input.file.changed(postcard::to_stdvec(&state).unwrap());
    let Ok(changed) = postcard::from_bytes::<VirtioStateV1>(&bytes) else { return };
    let restored = harness.restored(input.kind.device(1), &changed);
    if changed == state {
        assert!(restored.is_ok(), "what was saved is refused: {:?}", restored.err());
    }
    let Ok(mut restored) = restored else { return };
    drop(harness);
    restored.resume();
    for step in input.accesses.iter().take(32) {
        access(&mut restored, input.pci, step);
    }
    for step in input.after.into_iter().take(32) {
        step.take(&mut restored, queues);
    }
    // And once more, whatever has become of it.
    let state = restored.save();
    let again = restored.restored(input.kind.device(2), &state);
    assert!(again.is_ok(), "what was saved is refused: {:?}", again.err());
    if input.pci {
        restored.pci().switch_on();
    }
    restored.start(0, 16);
    assert!(!restored.needs_reset());
    input.kind.assert_works(&mut restored);
});
