//! A driver that writes anything to the configuration space and the BARs of a virtio-pci function, at any width, in any
//! order, wherever the BARs are at the moment. Any device is behind it.
//!
//! Holds: no access panics or hangs, no access asks anything of the VM, doorbells are given up once at most, and a driver
//! that puts BARs and command back and resets the device has a device that works and sends messages.
#![no_main]

mod any_device;

use std::time::Duration;

use arbitrary::Arbitrary;
use devices::bus::BusAction;
use devices::pci::{PciFunction, Space};
use devices::virtio::pci_harness::MEMORY_BASE;
use devices::virtio::queue_harness::{Harness, TransportKind};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Access {
    /// Configuration space, most of which is where the registers are.
    Config { offset: u8, data: [u8; 8], len: u8, write: bool },
    /// BAR 0 where it was at first.
    Memory { offset: u16, data: [u8; 8], len: u8, write: bool },
    /// The structure that does most.
    Common { offset: u8, data: [u8; 4], len: u8 },
    /// Any address of either space.
    Anywhere { io: bool, address: u64, data: [u8; 8], len: u8, write: bool },
    /// A correct initialization, with the BARs put back.
    Start { queue_size: u16 },
    /// The event loop's turn.
    Process,
}

fn access(space: Space, function: &dyn PciFunction, address: u64, data: &mut [u8], write: bool) {
    if write {
        let action = function.write(space, address, data).unwrap_or_default();
        assert_eq!(action, BusAction::None);
    } else {
        function.read(space, address, data);
    }
}

fuzz_target!(|input: (any_device::Kind, Vec<Access>)| {
    let (kind, accesses) = input;
    let mut harness = Harness::behind(TransportKind::Pci, kind.device(0));
    for step in accesses {
        let function = harness.pci().function();
        match step {
            Access::Config { offset, mut data, len, write } => {
                let data = &mut data[..1 + usize::from(len % 8)];
                if write {
                    assert_eq!(function.write_config(offset.into(), data), BusAction::None);
                } else {
                    function.read_config(offset.into(), data);
                }
            }
            Access::Memory { offset, mut data, len, write } => {
                let address = u64::from(MEMORY_BASE) + u64::from(offset % 0x4000);
                access(Space::Memory, function, address, &mut data[..1 + usize::from(len % 8)], write);
            }
            Access::Common { offset, mut data, len } => {
                let address = u64::from(MEMORY_BASE) + u64::from(offset % 0x40);
                access(Space::Memory, function, address, &mut data[..1 << (len % 3)], true);
            }
            Access::Anywhere { io, address, mut data, len, write } => {
                let space = if io { Space::Io } else { Space::Memory };
                access(space, function, address, &mut data[..1 + usize::from(len % 8)], write);
            }
            Access::Start { queue_size } => {
                harness.pci().switch_on();
                harness.start(0, queue_size);
            }
            Access::Process => {
                for _ in 0..4 {
                    harness.run_once(Duration::ZERO);
                }
            }
        }
    }
    harness.pci().switch_on();
    harness.start(0, 16);
    assert!(!harness.needs_reset());
    let before = harness.interrupts();
    kind.assert_works(&mut harness);
    let interrupts = harness.interrupts() - before;
    assert!(interrupts > 0 || kind == any_device::Kind::Console);
    assert!(interrupts == 1 || kind != any_device::Kind::Entropy);
    // Each queue has one.
    let queues = harness.core().queue_count();
    assert!(harness.pci().doorbells().disconnected().len() <= queues);
});
