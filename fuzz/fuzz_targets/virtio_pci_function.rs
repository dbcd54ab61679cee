//! A driver that writes anything to the configuration space and the BARs of a virtio-pci function, at any width, in any
//! order, wherever the BARs are at the moment.
//!
//! Holds: no access panics or hangs, no access asks anything of the VM, doorbells are given up once at most, and a driver
//! that puts BARs and command back and resets the device has a device that works and sends messages.
#![no_main]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbitrary::Arbitrary;
use devices::bus::BusAction;
use devices::pci::{PciFunction, Space};
use devices::virtio::pci_harness::MEMORY_BASE;
use devices::virtio::queue_harness::{Buffer, Harness, TransportKind};
use devices::virtio::rng::{EntropyConfig, RngDevice};
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

fuzz_target!(|accesses: Vec<Access>| {
    let mut harness = Harness::behind(
        TransportKind::Pci,
        Arc::new(Mutex::new(RngDevice::new(&EntropyConfig::default()).unwrap())),
    );
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
    let address = harness.allocate(32, 0);
    harness.add_chain(0, &[Buffer::writable(address, 32)]);
    harness.kick(0);
    assert_eq!(harness.take_used(0).len(), 1);
    assert_eq!(harness.interrupts(), before + 1);
    assert!(harness.pci().doorbells().disconnected().len() <= 1);
});
