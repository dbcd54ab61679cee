use std::sync::{Arc, Mutex};

use super::*;
use crate::virtio::device::DeviceInterrupt;
use crate::virtio::pci_harness::{IO_BASE, MEMORY_BASE, MSI_ADDRESS, PciRegisters};
use crate::virtio::queue_harness::guest_memory;
use crate::virtio::state::BusState;
use crate::virtio::transport::Transport as _;
use crate::virtio::transport::test_device::{EVENT_IDX, Seen, TestDevice};

const VENDOR_SPECIFIC: u8 = 9;
const NO_VECTOR: u16 = 0xffff;

/// The function, switched on with MSI-X, and what its device sees.
fn function() -> (PciRegisters, Arc<Seen>) {
    let (device, seen) = TestDevice::new(VIRTIO_ID_NET, &[256, 64]);
    (PciRegisters::new(guest_memory(&[(0, 1 << 20)]), Arc::new(Mutex::new(device))), seen)
}

/// The function after DRIVER_OK with no queue, and its device's interrupt.
fn started() -> (PciRegisters, Arc<dyn DeviceInterrupt>) {
    let (registers, seen) = function();
    for status in [1, 3] {
        registers.write_memory(0x14, &[status]);
    }
    registers.write_memory(8, &[1, 0, 0, 0]);
    registers.write_memory(0xc, &[1, 0, 0, 0]);
    for status in [0xb, 0xf] {
        registers.write_memory(0x14, &[status]);
    }
    assert_eq!(memory::<1>(&registers, 0x14), [0xf]);
    let interrupt = seen.interrupt.lock().unwrap().clone().unwrap();
    (registers, interrupt)
}

fn memory<const N: usize>(registers: &PciRegisters, offset: u64) -> [u8; N] {
    let mut data = [0xaa; N];
    registers.read_memory(offset, &mut data);
    data
}

fn config<const N: usize>(registers: &PciRegisters, offset: usize) -> [u8; N] {
    let mut data = [0xaa; N];
    registers.function().read_config(offset, &mut data);
    data
}

fn config_u32(registers: &PciRegisters, offset: usize) -> u32 {
    u32::from_le_bytes(config(registers, offset))
}

fn kicked(registers: &PciRegisters) -> Vec<bool> {
    registers.function().core().queue_events().iter().map(|event| event.read().is_ok()).collect()
}

#[test]
fn a_driver_that_walks_the_capabilities_finds_every_structure_within_its_bar() {
    let (registers, _) = function();
    assert_eq!(config_u32(&registers, 0), 0x1041_1af4, "network device, not transitional");
    let mut found = Vec::new();
    for (id, offset) in registers.capabilities() {
        if id != VENDOR_SPECIFIC {
            found.push((id, 0, 0, config_u32(&registers, offset + 4)));
            continue;
        }
        let [len, kind, bar] = config(&registers, offset + 2);
        assert_eq!(len, if matches!(kind, 2 | 5) { 20 } else { 16 });
        let (start, size) = (config_u32(&registers, offset + 8), config_u32(&registers, offset + 12));
        assert!(start + size <= if bar == 0 { MEMORY_SIZE } else { 4 });
        found.push((kind, bar, start, size));
    }
    assert_eq!(
        found,
        [
            (1, 0, 0, 0x40),
            (3, 0, 0x100, 1),
            (2, 1, 0, 4),
            (4, 0, 0x1000, 0x1000),
            (5, 0, 0, 0),
            (0x11, 0, 0, 0x2000),
            (2, 0, 0x3000, 8),
        ]
    );
    assert_eq!(memory(&registers, 0x1001), [0xa1, 0xa2, 0xa3]);
    let (_, msix) = registers.capabilities()[5];
    assert_eq!(config(&registers, msix + 2), [2, 0x80], "three vectors");
    assert_eq!(config_u32(&registers, msix + 8), 0x2800, "pending bits");
}

#[test]
fn the_common_structure_reads_back_what_was_written() {
    let (registers, _) = function();
    assert_eq!(memory(&registers, 0x12), [2, 0], "queues");
    for (select, half) in [(0, EVENT_IDX as u32 | 1), (1, 1), (2, 0)] {
        registers.write_memory(0, &u32::to_le_bytes(select));
        assert_eq!(
            (memory(&registers, 0), memory(&registers, 4)),
            (select.to_le_bytes(), u32::to_le_bytes(half))
        );
    }
    registers.write_memory(0x14, &[3]);
    registers.write_memory(0xc, &[1, 0, 0, 0]);
    assert_eq!(memory(&registers, 0xc), [1, 0, 0, 0]);
    registers.write_memory(8, &[1, 0, 0, 0]);
    registers.write_memory(0xc, &[1, 0, 0, 0]);
    registers.write_memory(0x14, &[0xb]);
    for (queue, size) in [(0u16, 256u16), (1, 64), (2, 0)] {
        registers.write_memory(0x16, &queue.to_le_bytes());
        assert_eq!(memory(&registers, 0x18), size.to_le_bytes());
        assert_eq!(memory(&registers, 0x1e), queue.to_le_bytes(), "queue_notify_off");
    }
    registers.write_memory(0x16, &[1, 0]);
    registers.write_memory(0x18, &[8, 0]);
    for register in (0x20..0x38).step_by(4) {
        registers.write_memory(register, &[register as u8, 0, 0, 0]);
        assert_eq!(memory(&registers, register), [register as u8, 0, 0, 0]);
    }
    registers.write_memory(0x1c, &[0, 0]);
    assert_eq!(memory(&registers, 0x1c), [0, 0]);
    registers.write_memory(0x1c, &[1, 0]);
    assert_eq!((memory(&registers, 0x1c), memory(&registers, 0x18)), ([1, 0], [8, 0]));
    registers.write_memory(0x1c, &[0, 0]);
    assert_eq!(memory(&registers, 0x1c), [1, 0], "0 is not to be written");
}

#[test]
fn each_queue_is_notified_at_its_port() {
    let (registers, _) = started();
    let doorbells: Vec<_> = registers.function().doorbells().map(|(doorbell, _)| doorbell).collect();
    let first = u64::from(IO_BASE);
    assert_eq!(doorbells, [first, first + 2].map(|address| Doorbell { space: Space::Io, address }));
    for (queue, Doorbell { space, address }) in doorbells.into_iter().enumerate() {
        for value in [[0, 0], [1, 0], [0xff, 0xff]] {
            assert_eq!(registers.function().write(space, address, &value), Some(BusAction::None));
            assert_eq!(kicked(&registers), [queue == 0, queue == 1], "{address:#x}, whatever the value");
        }
    }
    assert_eq!(registers.function().write(Space::Io, first + 1, &[0]), Some(BusAction::None));
    assert!(registers.function().write(Space::Io, first + 4, &[0, 0]).is_none());
    assert_eq!(kicked(&registers), [false, false]);
}

#[test]
fn each_queue_is_notified_at_its_address_in_memory_as_well() {
    let (registers, _) = started();
    let (_, capability) = registers.capabilities()[6];
    let multiplier = config_u32(&registers, capability + 16);
    for queue in 0..2_u32 {
        for value in [&[0, 0][..], &[1, 0], &[0xff; 4], &[0]] {
            registers.write_memory(u64::from(0x3000 + queue * multiplier), value);
            assert_eq!(kicked(&registers), [queue == 0, queue == 1], "{queue}, whatever the value");
        }
    }
    for nothing in [0x3001, 0x3002, 0x3008, 0x3ffc] {
        registers.write_memory(nothing, &[0, 0]);
        assert_eq!(memory(&registers, nothing), [0, 0]);
    }
    assert_eq!(kicked(&registers), [false, false]);
}

#[test]
fn addresses_of_queues_are_taken_in_accesses_of_8_bytes() {
    let (registers, _) = function();
    registers.write_memory(0x14, &[3]);
    registers.write_memory(8, &[1, 0, 0, 0]);
    registers.write_memory(0xc, &[1, 0, 0, 0]);
    registers.write_memory(0x14, &[0xb]);
    for register in [0x20, 0x28, 0x30] {
        let value = [register as u8, 2, 3, 4, 5, 6, 7, 8];
        registers.write_memory(register, &value);
        assert_eq!(memory(&registers, register), value);
        assert_eq!(memory(&registers, register + 4), [5, 6, 7, 8]);
    }
    assert_eq!(memory(&registers, 0x38), [0; 8]);
}

#[test]
fn a_function_that_was_saved_with_other_capabilities_has_those_when_it_is_restored() {
    for device_type in [VIRTIO_ID_NET, VIRTIO_ID_RNG] {
        assert_restores_first_capabilities(device_type);
    }
}

#[track_caller]
fn assert_restores_first_capabilities(device_type: u32) {
    let function = || {
        let (device, _) = TestDevice::new(device_type, &[256, 64]);
        PciRegisters::new(guest_memory(&[(0, 1 << 20)]), Arc::new(Mutex::new(device)))
    };
    let saved = function();
    let saved = saved.function();
    let (list, msix) = (CapabilityList::First, saved.signal.msix());
    let mut first = Configuration::new(list, saved.core(), msix, MEMORY_BASE, IO_BASE);
    // As it was when the guest had switched the function on, with MSI-X.
    first.space.write(COMMAND, &[7]);
    first.space.write(first.capabilities.msix_control(), &[0, 0x80]);
    let mut state = saved.save().unwrap();
    let BusState::PciV1(pci) = &mut state.bus else { panic!("not on PCI") };
    pci.config = first.space.save();
    let restored = function();
    restored.function().restore(&state).unwrap();
    assert_eq!(restored.capabilities().len(), 6);
    assert!(restored.function().signal.msix().enabled());
    let BusState::PciV1(again) = restored.function().save().unwrap().bus else { panic!("not on PCI") };
    let BusState::PciV1(pci) = &mut state.bus else { panic!("not on PCI") };
    assert_eq!(again.config, pci.config);
    pci.config[2] ^= 1;
    let error = restored.function().restore(&state).unwrap_err().to_string();
    assert!(error.contains("another function's"), "{error}");
}

#[test]
fn each_queue_and_the_configuration_send_the_message_of_their_vector() {
    let (registers, interrupt) = started();
    interrupt.signal_queue(0);
    interrupt.signal_config_change();
    assert_eq!(registers.msi().sent(), [], "no vectors yet");
    registers.assign_vectors();
    interrupt.signal_queue(1);
    interrupt.signal_config_change();
    interrupt.signal_queue(0);
    assert_eq!(registers.msi().sent(), [(MSI_ADDRESS, 2), (MSI_ADDRESS, 0), (MSI_ADDRESS, 1)]);
    assert_eq!(memory(&registers, 0x100), [0], "no ISR status with MSI-X");
    assert_ne!(memory(&registers, 0x15), [0], "the configuration's generation");
}

#[test]
fn a_vector_that_the_table_has_not_reads_back_as_none_and_a_reset_takes_all_back() {
    let (registers, interrupt) = started();
    registers.assign_vectors();
    for register in [0x10, 0x1a] {
        for (vector, kept) in [(2, 2), (3, NO_VECTOR), (0, 0), (NO_VECTOR, NO_VECTOR), (1, 1)] {
            registers.write_memory(register, &u16::to_le_bytes(vector));
            assert_eq!(memory(&registers, register), kept.to_le_bytes());
        }
    }
    registers.write_memory(0x16, &[7, 0]);
    registers.write_memory(0x1a, &[0, 0]);
    assert_eq!(memory(&registers, 0x1a), [0xff; 2], "no such queue");
    registers.write_memory(0x14, &[0]);
    assert_eq!((memory(&registers, 0x10), memory(&registers, 0x1a)), ([0xff; 2], [0xff; 2]));
    interrupt.signal_queue(0);
    assert_eq!(registers.msi().sent(), []);
}

#[test]
fn without_msix_the_isr_status_tells_and_is_cleared_by_reading() {
    let (registers, interrupt) = started();
    registers.assign_vectors();
    let (_, msix) = registers.capabilities()[5];
    let _ = registers.function().write_config(msix + 3, &[0]);
    interrupt.signal_queue(0);
    interrupt.signal_config_change();
    assert_eq!(memory(&registers, 0x100), [3]);
    assert_eq!(memory(&registers, 0x100), [0]);
    assert_eq!(registers.msi().sent(), []);
}

#[test]
fn configuration_space_reaches_the_structures_as_well() {
    let (registers, _) = function();
    let (_, cap) = registers.capabilities()[4];
    let aim = |bar: u8, offset: u32, length: u32| {
        let _ = registers.function().write_config(cap + 4, &[bar]);
        let _ = registers.function().write_config(cap + 8, &offset.to_le_bytes());
        let _ = registers.function().write_config(cap + 12, &length.to_le_bytes());
    };
    aim(0, 0x1000, 4);
    assert_eq!(config(&registers, cap + 16), [0xa0, 0xa1, 0xa2, 0xa3]);
    aim(0, 0x14, 1);
    let _ = registers.function().write_config(cap + 16, &[1, 0, 0, 0]);
    assert_eq!(memory(&registers, 0x14), [1], "device status");
    assert_eq!(config(&registers, cap + 16), [1, 0, 0, 0]);
    aim(1, 2, 2);
    let _ = registers.function().write_config(cap + 16, &[0, 0, 0, 0]);
    assert_eq!(kicked(&registers), [false, true]);
    for (bar, offset, length) in
        [(0, 0x14, 0), (0, 0x14, 3), (0, 0x13, 2), (0, u32::MAX, 1), (9, 0, 4), (0, 0x14, u32::MAX)]
    {
        aim(bar, offset, length);
        let _ = registers.function().write_config(cap + 16, &[0xff; 4]);
        let _ = config::<4>(&registers, cap + 16);
    }
    assert_eq!(memory(&registers, 0x14), [1]);
}

#[test]
fn a_function_that_moves_answers_there_and_gives_its_doorbells_up_once() {
    let (registers, _) = function();
    let function = registers.function();
    // What Linux does to size a BAR.
    for register in [0x10, 0x14] {
        let address: [u8; 4] = config(&registers, register);
        let _ = function.write_config(COMMAND, &[4, 0]);
        let _ = function.write_config(register, &[0xff; 4]);
        let _ = function.write_config(register, &address);
        let _ = function.write_config(COMMAND, &[7, 0]);
    }
    assert_eq!(registers.doorbells().disconnected(), []);
    assert_eq!(memory(&registers, 0x12), [2, 0]);

    let _ = function.write_config(0x14, &0x1f00u32.to_le_bytes());
    assert_eq!(registers.doorbells().disconnected().len(), 2);
    assert!(function.write(Space::Io, 0x1f02, &[0, 0]).is_some());
    assert_eq!(kicked(&registers), [false, true]);
    assert!(function.write(Space::Io, IO_BASE.into(), &[0, 0]).is_none());
    let _ = function.write_config(0x10, &0xdead_8000u32.to_le_bytes());
    assert!(function.read(Space::Memory, 0xdead_8012, &mut [0; 2]));
    assert!(!function.read(Space::Memory, u64::from(MEMORY_BASE) + 0x12, &mut [0; 2]));
    assert_eq!(registers.doorbells().disconnected().len(), 2, "no more than once");
}

#[test]
fn any_access_of_any_width_anywhere_is_harmless() {
    for started_first in [false, true] {
        let (registers, _) = if started_first { (started().0, None) } else { (function().0, Some(())) };
        let function = registers.function();
        let offsets = (0..0x140)
            .chain(0x1000..0x1010)
            .chain(0x2000..0x2010)
            .chain(0x3000..0x3040)
            .chain(0x37f8..0x3810);
        for offset in offsets.chain(0x3ff0..0x4000) {
            for width in 1..=8usize.min(0x4000 - offset) {
                registers.read_memory(offset as u64, &mut [0xaa; 8][..width]);
                for byte in [0, 1, 0x7f, 0xff] {
                    registers.write_memory(offset as u64, &[byte; 8][..width]);
                }
            }
        }
        let mut past_the_end = [0; 8];
        assert!(!function.read(Space::Memory, u64::from(MEMORY_BASE) + 0x3ffc, &mut past_the_end));
        for offset in 0..0x110 {
            for width in 1..=8 {
                function.read_config(offset, &mut [0; 8][..width]);
                for byte in [0, 1, 0x7f, 0xff] {
                    assert_eq!(function.write_config(offset, &[byte; 8][..width]), BusAction::None);
                }
            }
        }
    }
}

#[test]
fn a_device_with_too_many_queues_is_refused() {
    let msi = Arc::new(crate::interrupt::FakeMsi::default());
    let doorbells = Arc::new(crate::virtio::pci_harness::FakeDoorbells::default());
    let place = PciPlace { memory: MEMORY_BASE, io: IO_BASE, msi, doorbells };
    let (device, _) = TestDevice::new(VIRTIO_ID_NET, &[16; MAX_QUEUES + 1]);
    let error = PciTransport::new(guest_memory(&[(0, 4096)]), Arc::new(Mutex::new(device)), place).err();
    assert!(error.unwrap().to_string().contains("65 virtqueues"));
}
