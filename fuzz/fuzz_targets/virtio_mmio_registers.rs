//! A driver that writes anything to any register of any virtio-mmio device, at any width, in any order.
//!
//! Holds: no access panics or hangs, no access asks anything of the VM, and a reset always brings the device back.
#![no_main]

mod any_device;

use std::time::Duration;

use arbitrary::Arbitrary;
use devices::bus::{BusAction, BusDevice};
use devices::virtio::queue_harness::{Harness, TransportKind};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Access {
    /// A register as a driver writes it.
    Register {
        register: u8,
        value: u32,
    },
    /// A register whose values matter most, so that the device is started now and then.
    Status(u8),
    /// Any offset, any width.
    Write {
        offset: u64,
        data: [u8; 8],
        len: u8,
    },
    Read {
        offset: u64,
        len: u8,
    },
    /// A correct initialization.
    Start {
        features: u64,
        queue_size: u16,
    },
    /// What the driver writes to its rings.
    Memory {
        address: u32,
        data: [u8; 16],
    },
    /// The event loop's turn.
    Process,
}

fuzz_target!(|input: (any_device::Kind, Vec<Access>)| {
    let (kind, accesses) = input;
    let mut harness = Harness::behind(TransportKind::Mmio, kind.device(0));
    for access in accesses {
        match access {
            Access::Register { register, value } => harness.write(u32::from(register) & !3, value),
            Access::Status(status) => harness.write(0x70, u32::from(status)),
            Access::Write { offset, data, len } => {
                let data = &data[..1 + usize::from(len % 8)];
                assert_eq!(harness.transport().write(offset, data), BusAction::None);
            }
            Access::Read { offset, len } => {
                harness.transport().read(offset, &mut vec![0; 1 + usize::from(len % 8)])
            }
            Access::Start { features, queue_size } => harness.start(features, queue_size),
            Access::Memory { address, data } => {
                let address = u64::from(address) % (1 << 20);
                vm_memory::Bytes::write_slice(harness.memory(), &data, vm_memory::GuestAddress(address))
                    .unwrap();
            }
            Access::Process => {
                // A driver that corrupts its rings can make the device work for long, but each turn is bounded.
                for _ in 0..4 {
                    harness.run_once(Duration::ZERO);
                }
            }
        }
    }
    harness.start(0, 16);
    assert!(!harness.needs_reset());
    kind.assert_works(&mut harness);
});
