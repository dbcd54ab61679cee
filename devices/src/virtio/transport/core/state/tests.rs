//! Devices behind both transports, saved and restored at any moment of a driver's life; and states that no device had.

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_mmio as mmio;

use crate::pci::config_space::{BAR0, COMMAND};
use crate::pci::{PciFunction, Space};
use crate::virtio::device::SharedDevice;
use crate::virtio::pci_harness::{IO_BASE, MEMORY_BASE, MSI_ADDRESS};
use crate::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE, TransportKind, VERSION_1};
use crate::virtio::rng::{EntropyConfig, RngDevice};
use crate::virtio::state::{BusState, DeviceState, VirtioStateV1};
use crate::virtio::transport::Transport as _;
use crate::virtio::transport::mmio::MmioStateV1;
use crate::virtio::transport::pci::PciStateV1;
use crate::virtio::vsock::VsockStateV1;

const TRANSPORTS: [TransportKind; 2] = [TransportKind::Mmio, TransportKind::Pci];
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

fn device() -> SharedDevice {
    Arc::new(Mutex::new(RngDevice::new(&EntropyConfig::default()).unwrap()))
}

fn new(transport: TransportKind) -> Harness {
    Harness::behind(transport, device())
}

fn started(transport: TransportKind) -> Harness {
    let mut harness = new(transport);
    harness.start(0, 16);
    harness
}

/// The guest, restored from the bytes that a file would have.
fn restored(harness: &Harness) -> Harness {
    let bytes = postcard::to_stdvec(&harness.save()).unwrap();
    let restored = harness.restored(device(), &postcard::from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(postcard::to_stdvec(&restored.save()).unwrap(), bytes, "saved again");
    restored
}

/// Makes a buffer available and has it filled.
fn works(harness: &mut Harness) {
    let before = harness.interrupts();
    let address = harness.allocate(32, 0);
    let head = harness.add_chain(0, &[Buffer::writable(address, 32)]);
    harness.kick(0);
    let used: Vec<u32> = harness.take_used(0).iter().map(|used| used.head).collect();
    assert_eq!(used, [u32::from(head)]);
    assert_eq!(harness.interrupts(), before + 1);
}

/// What a driver can read without changing anything.
fn registers(harness: &Harness) -> Vec<u32> {
    (0..0x100).step_by(4).map(|register| harness.read(register)).collect()
}

#[test]
fn a_driver_that_is_half_way_goes_on_where_it_was() {
    let writes = [
        (mmio::VIRTIO_MMIO_STATUS, 1),
        (mmio::VIRTIO_MMIO_STATUS, 3),
        (mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1),
        (mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        (mmio::VIRTIO_MMIO_DRIVER_FEATURES, 1),
        (mmio::VIRTIO_MMIO_STATUS, 11),
        (mmio::VIRTIO_MMIO_QUEUE_SEL, 77),
        (mmio::VIRTIO_MMIO_QUEUE_SEL, 0),
        (mmio::VIRTIO_MMIO_QUEUE_NUM, 12345),
        (mmio::VIRTIO_MMIO_QUEUE_NUM, 16),
        (mmio::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x20000),
        (mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x28000),
        (mmio::VIRTIO_MMIO_QUEUE_USED_HIGH, 0xffff_ffff),
        (mmio::VIRTIO_MMIO_QUEUE_USED_HIGH, 0),
        (mmio::VIRTIO_MMIO_QUEUE_USED_LOW, 0x30000),
        (mmio::VIRTIO_MMIO_QUEUE_READY, 1),
        (mmio::VIRTIO_MMIO_STATUS, 15),
    ];
    for transport in TRANSPORTS {
        let mut harness = new(transport);
        for (register, value) in writes {
            harness = restored(&harness);
            harness.write(register, value);
            assert_eq!(registers(&restored(&harness)), registers(&harness), "{register:#x} = {value:#x}");
        }
        assert_eq!(harness.status(), 15);
        assert_eq!(harness.read(mmio::VIRTIO_MMIO_QUEUE_READY), 1);
    }
}

#[test]
fn an_active_device_goes_on_without_losing_or_repeating_a_completion() {
    for transport in TRANSPORTS {
        let mut harness = started(transport);
        for round in 0_u16..40 {
            let address = harness.allocate(64, 0);
            let heads: Vec<u32> =
                (0..5).map(|_| harness.add_chain(0, &[Buffer::writable(address, 64)]).into()).collect();
            if round % 2 == 0 {
                harness.kick(0);
            } else {
                // The notification is lost with the process that it came to.
                harness.write(mmio::VIRTIO_MMIO_QUEUE_NOTIFY, 0);
            }
            harness = restored(&harness);
            harness.resume();
            let used: Vec<u32> = harness.take_used(0).iter().map(|used| used.head).collect();
            assert_eq!(used, heads, "round {round} behind {transport:?}");
            works(&mut harness);
        }
    }
}

#[test]
fn a_restored_driver_is_interrupted_once_for_what_it_may_have_missed() {
    for transport in TRANSPORTS {
        let mut restored = restored(&started(transport));
        assert_eq!(restored.interrupts(), 0, "not before it runs");
        restored.resume();
        assert_eq!(restored.interrupts(), 1);
        let mut idle = self::restored(&new(transport));
        idle.resume();
        assert_eq!(idle.interrupts(), 0, "there is no driver");
    }
}

#[test]
fn a_device_that_needs_a_reset_still_does() {
    for transport in TRANSPORTS {
        let mut harness = started(transport);
        harness.make_available(0, 999);
        harness.kick(0);
        assert!(harness.needs_reset());
        let mut restored = restored(&harness);
        assert_eq!(restored.status(), 15 | NEEDS_RESET);
        restored.resume();
        restored.kick(0);
        assert!(restored.take_used(0).is_empty());
        restored.start(0, 16);
        works(&mut restored);
    }
}

#[test]
fn a_driver_that_gave_up_has_given_up() {
    for transport in TRANSPORTS {
        let harness = started(transport);
        harness.write(mmio::VIRTIO_MMIO_STATUS, 15 | FAILED);
        let mut restored = restored(&harness);
        assert_eq!(restored.status(), 15 | FAILED);
        restored.resume();
        works(&mut restored);
    }
}

#[test]
fn the_cause_of_an_interrupt_stays_until_it_is_acknowledged() {
    let mut harness = started(TransportKind::Mmio);
    works(&mut harness);
    let restored = restored(&harness);
    assert_eq!(restored.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    restored.write(mmio::VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(self::restored(&restored).read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn a_masked_vector_that_waits_is_sent_after_the_restore() {
    let mut harness = started(TransportKind::Pci);
    harness.pci().write_memory(0x2000 + 16 + 12, &[1, 0, 0, 0]);
    let address = harness.allocate(32, 0);
    harness.add_chain(0, &[Buffer::writable(address, 32)]);
    harness.kick(0);
    assert_eq!(harness.interrupts(), 0);
    let restored = restored(&harness);
    restored.pci().write_memory(0x2000 + 16 + 12, &[0; 4]);
    assert_eq!(restored.pci().msi().sent(), [(MSI_ADDRESS, 1)]);
}

#[test]
fn a_function_answers_where_the_guest_has_put_it() {
    let harness = started(TransportKind::Pci);
    let (memory, port) = (MEMORY_BASE + 0x10_0000, u32::from(IO_BASE) + 0x100);
    let bars = [memory.to_le_bytes(), port.to_le_bytes()];
    let _ = harness.pci().function().write_config(BAR0, bars.as_flattened());
    let mut restored = restored(&harness);
    let read = |harness: &Harness, address: u32| {
        let mut status = [0];
        harness.pci().function().read(Space::Memory, u64::from(address) + 0x14, &mut status).then_some(status)
    };
    assert_eq!((read(&restored, memory), read(&restored, MEMORY_BASE)), (Some([15]), None));
    assert_eq!(restored.pci().doorbells().disconnected().len(), 1, "the host listens there no more");
    let address = restored.allocate(32, 0);
    restored.add_chain(0, &[Buffer::writable(address, 32)]);
    assert!(restored.pci().function().write(Space::Io, port.into(), &[0, 0]).is_some());
    assert_eq!(restored.wait_used(0, 1).len(), 1);
    // One that is switched off has not moved.
    let _ = harness.pci().function().write_config(COMMAND, &[0, 0]);
    let off = self::restored(&harness);
    assert_eq!((read(&off, memory), off.pci().doorbells().disconnected().len()), (None, 0));
}

/// Has `change` make a state of something that no device had, which must be refused with `reason`.
fn refused(transport: TransportKind, change: impl FnOnce(&mut VirtioStateV1), reason: &str) {
    let harness = started(transport);
    let mut state = harness.save();
    change(&mut state);
    let error = harness.restored(device(), &state).map(drop).unwrap_err().to_string();
    assert!(error.contains(reason), "{error:?} for {reason:?}");
}

#[test]
fn registers_that_no_device_has_are_refused() {
    for transport in TRANSPORTS {
        let refused = |change: fn(&mut VirtioStateV1), reason| refused(transport, change, reason);
        refused(|state| state.device_type = 2, "of device type 2, and this is device type 4");
        refused(|state| state.status = 0x1f, "no device has the status 0x1f");
        refused(|state| state.status = 0xd, "no device has the status 0xd");
        refused(|state| state.status = u32::MAX, "no device has the status");
        refused(|state| state.status = 0xb | NEEDS_RESET, "no device has the status 0x4b");
        refused(|state| state.driver_features = 0, "VIRTIO_F_VERSION_1");
        refused(|state| state.driver_features |= 1 << 5 | 1 << 63, "bits 5, 63");
        refused(|state| state.unknown_features = true, "past bit 63");
        refused(|state| state.queues.clear(), "the state has 0 queues, and the device has 1");
        refused(|state| state.queues.resize(100_000, state.queues[0].clone()), "has 100000 queues");
        refused(|state| state.queues[0].size = 0, "virtqueue 0: ready with size 0");
        refused(|state| state.queues[0].size = 24, "ready with size 24");
        refused(|state| state.queues[0].size = 128, "ready with size 128: it is a power of two up to 64");
        refused(|state| state.queues[0].size = u32::MAX, "ready with size 4294967295");
        refused(|state| state.queues[0].descriptor = MEMORY_SIZE, "virtqueue 0: descriptor table");
        refused(|state| state.queues[0].descriptor = u64::MAX - 15, "descriptor table");
        refused(|state| state.queues[0].descriptor += 1, "virtqueue 0: ");
        refused(|state| state.queues[0].driver = MEMORY_SIZE - 2, "available ring");
        refused(|state| state.queues[0].device = 1 << 63, "used ring");
        refused(
            |state| state.device = DeviceState::VsockV1(VsockStateV1::default()),
            "the state is of a socket device, and this is an entropy device",
        );
    }
}

fn pci(state: &mut VirtioStateV1) -> &mut PciStateV1 {
    match &mut state.bus {
        BusState::PciV1(state) => state,
        BusState::MmioV1(_) => panic!("not behind virtio-pci"),
    }
}

#[test]
fn a_transport_s_own_registers_that_it_has_not_are_refused() {
    let refused_by_mmio =
        |change: fn(&mut VirtioStateV1), reason| refused(TransportKind::Mmio, change, reason);
    refused_by_mmio(|state| state.bus = BusState::PciV1(PciStateV1::default()), "on PCI");
    let causes = |interrupt_status| BusState::MmioV1(MmioStateV1 { interrupt_status });
    refused(TransportKind::Mmio, |state| state.bus = causes(4), "no interrupt status is 0x4");

    refused(TransportKind::Pci, |state| state.bus = causes(0), "on virtio-mmio, and this one is on PCI");
    let refused =
        |change: fn(&mut PciStateV1), reason| refused(TransportKind::Pci, |state| change(pci(state)), reason);
    refused(|state| state.config.clear(), "configuration space of 0 bytes");
    refused(|state| state.config.push(0), "configuration space of 257 bytes");
    refused(|state| state.config[2] ^= 1, "another function's: at 0x2 it has 0x45, and this one 0x44");
    refused(|state| state.config[0x11] ^= 1, "at 0x11");
    refused(|state| state.config[0x34] = 0, "at 0x34");
    refused(|state| state.config[0xff] = 1, "at 0xff");
    refused(|state| state.msix.clear(), "the state has 0 MSI-X vectors, and the function 2");
    refused(|state| state.msix.resize(100_000, state.msix[0].clone()), "100000 MSI-X vectors");
    refused(|state| state.config_vector = 2, "no interrupt has vector 2: there are 2");
    refused(|state| state.queue_vectors[0] = 0xfffe, "no interrupt has vector 65534");
    refused(|state| state.queue_vectors.push(0), "vectors of 2 queues, and there are 1");
    refused(|state| state.isr = 4, "no ISR status is 0x4");
}

#[test]
fn indices_from_nowhere_are_the_driver_s_fault_when_they_are_used() {
    for transport in TRANSPORTS {
        let harness = started(transport);
        for (next_avail, next_used) in [(1, 0), (0, 1), (u16::MAX, 7), (0x8000, 0x8000)] {
            let mut state = harness.save();
            (state.queues[0].next_avail, state.queues[0].next_used) = (next_avail, next_used);
            let mut restored = harness.restored(device(), &state).unwrap();
            restored.resume();
            restored.kick(0);
            restored.start(0, 16);
            works(&mut restored);
        }
    }
}

/// Lets a restored device do what its state has it do; nothing but a panic is wrong.
fn exercise(mut harness: Harness) {
    harness.resume();
    let address = harness.allocate(32, 0);
    harness.add_chain(0, &[Buffer::writable(address, 32)]);
    harness.core().notify_queue(0);
    while harness.run_once(std::time::Duration::ZERO) {}
    harness.core().set_status(0);
}

#[test]
fn a_state_with_any_byte_changed_or_cut_off_is_refused_or_is_a_device() {
    for transport in TRANSPORTS {
        let mut harness = started(transport);
        works(&mut harness);
        let bytes = postcard::to_stdvec(&harness.save()).unwrap();
        for at in 0..bytes.len() {
            assert!(postcard::from_bytes::<VirtioStateV1>(&bytes[..at]).is_err());
            for flip in [1, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                if let Ok(state) = postcard::from_bytes(&bytes)
                    && let Ok(restored) = harness.restored(device(), &state)
                {
                    exercise(restored);
                }
            }
        }
    }
}

#[test]
fn a_device_that_another_driver_uses_takes_no_state() {
    let harness = started(TransportKind::Mmio);
    let state = harness.save();
    assert_eq!(state.driver_features, VERSION_1);
    let error = harness.transport().restore(&state).unwrap_err();
    assert_eq!(error.to_string(), "the device is in use");
}
