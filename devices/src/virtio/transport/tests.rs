use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_mmio as mmio;

use super::test_device::{EVENT_IDX, Seen, TestDevice};
use crate::bus::BusDevice;
use crate::virtio::device::DeviceEvent;
use crate::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE, VERSION_1};

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

fn device() -> (Harness, Arc<Seen>) {
    let (device, seen) = TestDevice::new(42, &[256, 64]);
    (Harness::new(device), seen)
}

fn started() -> (Harness, Arc<Seen>) {
    let (mut harness, seen) = device();
    harness.start(EVENT_IDX, 16);
    assert_eq!(harness.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    (harness, seen)
}

fn set_status(harness: &Harness, status: u32) -> u32 {
    harness.write(mmio::VIRTIO_MMIO_STATUS, status);
    harness.status()
}

#[test]
fn identification_registers_say_what_the_device_is() {
    let (harness, _) = device();
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_VERSION), 2);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_DEVICE_ID), 42);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_VENDOR_ID).to_le_bytes(), *b"rvmm");
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX, "no shared memory");
    for (select, half) in [(0, EVENT_IDX as u32 | 1), (1, 1), (2, 0), (u32::MAX, 0)] {
        harness.write(mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
        assert_eq!(harness.read(mmio::VIRTIO_MMIO_DEVICE_FEATURES), half, "features half {select}");
    }
    for (queue, max) in [(0, 256), (1, 64), (2, 0), (u32::MAX, 0)] {
        harness.write(mmio::VIRTIO_MMIO_QUEUE_SEL, queue);
        assert_eq!(harness.read(mmio::VIRTIO_MMIO_QUEUE_NUM_MAX), max, "queue {queue}");
    }
}

#[test]
fn a_driver_that_follows_the_steps_gets_its_queues() {
    let (harness, seen) = started();
    assert_eq!(seen.activations.load(Ordering::SeqCst), 1);
    assert_eq!(*seen.queues.lock().unwrap(), [(true, 16, true), (true, 16, true)]);
    assert_eq!(harness.interrupts(), 0);
}

#[test]
fn steps_can_be_taken_together_but_not_skipped_or_taken_back() {
    let (harness, seen) = device();
    for status in
        [DRIVER, FEATURES_OK, DRIVER_OK, ACKNOWLEDGE | FEATURES_OK, ACKNOWLEDGE | DRIVER | DRIVER_OK]
    {
        assert_eq!(set_status(&harness, status), 0, "{status:#x}");
    }
    assert_eq!(set_status(&harness, ACKNOWLEDGE | DRIVER), ACKNOWLEDGE | DRIVER);
    assert_eq!(
        set_status(&harness, ACKNOWLEDGE),
        ACKNOWLEDGE | DRIVER,
        "a bit is not cleared but by a reset"
    );
    assert_eq!(
        set_status(&harness, ACKNOWLEDGE | DRIVER | 0x30),
        ACKNOWLEDGE | DRIVER,
        "reserved bits stay clear"
    );
    assert_eq!(
        set_status(&harness, u32::MAX),
        ACKNOWLEDGE | DRIVER | FAILED,
        "no VERSION_1, and the driver gave up"
    );
    assert_eq!(set_status(&harness, 0), 0);
    assert_eq!(seen.activations.load(Ordering::SeqCst), 0);
}

#[test]
fn features_are_refused_when_not_offered_or_without_version_1() {
    let (mut harness, _) = device();
    for (features, accepted) in [
        (VERSION_1, true),
        (VERSION_1 | 1 | EVENT_IDX, true),
        (0, false),
        (1, false),
        (VERSION_1 | 2, false),
        (VERSION_1 | 1 << 63, false),
    ] {
        harness.negotiate(features);
        assert_eq!(harness.status() & FEATURES_OK != 0, accepted, "{features:#x}");
    }
    harness.write(mmio::VIRTIO_MMIO_STATUS, 0);
    set_status(&harness, ACKNOWLEDGE | DRIVER);
    for (select, half) in [(1, 1), (2, 1)] {
        harness.write(mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
        harness.write(mmio::VIRTIO_MMIO_DRIVER_FEATURES, half);
    }
    assert_eq!(set_status(&harness, ACKNOWLEDGE | DRIVER | FEATURES_OK), ACKNOWLEDGE | DRIVER, "bit 64");
}

#[test]
fn features_cannot_change_once_they_are_agreed_on() {
    let (mut harness, seen) = device();
    harness.negotiate(VERSION_1);
    harness.write(mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    harness.write(mmio::VIRTIO_MMIO_DRIVER_FEATURES, EVENT_IDX as u32);
    harness.set_up_queue(0, 16);
    set_status(&harness, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(seen.queues.lock().unwrap()[0], (true, 16, false));
}

#[test]
fn a_queue_of_a_bad_size_does_not_become_ready() {
    let (mut harness, _) = device();
    harness.negotiate(VERSION_1);
    for size in [0, 3, 255, 257, 512, 32768, 65535] {
        assert!(!harness.set_up_queue(0, size), "size {size}");
    }
    harness.write(mmio::VIRTIO_MMIO_QUEUE_NUM, 0x1_0010);
    harness.write(mmio::VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_QUEUE_READY), 0, "not cut to 16 bits");
    for size in [1, 2, 256] {
        assert!(harness.set_up_queue(0, size), "size {size}");
        harness.write(mmio::VIRTIO_MMIO_QUEUE_READY, 0);
    }
}

#[test]
fn a_ready_queue_does_not_change_and_no_queue_is_set_up_at_the_wrong_time() {
    let (mut harness, seen) = device();
    assert!(!harness.set_up_queue(0, 16), "before FEATURES_OK");
    harness.negotiate(VERSION_1);
    assert!(harness.set_up_queue(0, 16));
    harness.write(mmio::VIRTIO_MMIO_QUEUE_NUM, 3);
    harness.write(mmio::VIRTIO_MMIO_QUEUE_DESC_LOW, 1);
    set_status(&harness, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(*seen.queues.lock().unwrap(), [(true, 16, false), (false, 64, false)]);
    harness.write(mmio::VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_QUEUE_READY), 1, "after DRIVER_OK");
}

#[test]
fn rings_that_are_misaligned_or_outside_of_memory_need_a_reset() {
    let registers = [
        mmio::VIRTIO_MMIO_QUEUE_DESC_LOW,
        mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        mmio::VIRTIO_MMIO_QUEUE_USED_LOW,
    ];
    for register in registers {
        for address in [1, MEMORY_SIZE - 2, MEMORY_SIZE, u64::MAX, u64::MAX - 15] {
            let (mut harness, seen) = device();
            harness.negotiate(VERSION_1);
            harness.set_up_queue(0, 16);
            harness.write(mmio::VIRTIO_MMIO_QUEUE_READY, 0);
            harness.write(register, address as u32);
            harness.write(register + 4, (address >> 32) as u32);
            harness.write(mmio::VIRTIO_MMIO_QUEUE_READY, 1);
            set_status(&harness, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
            assert!(harness.needs_reset(), "register {register:#x} = {address:#x}");
            assert_eq!(seen.activations.load(Ordering::SeqCst), 0);
            assert_eq!(harness.interrupts(), 1, "a configuration change");
        }
    }
}

#[test]
fn notifications_reach_an_active_device_only() {
    let (mut harness, seen) = device();
    harness.kick(0);
    assert!(seen.processed.lock().unwrap().is_empty());
    harness.start(0, 16);
    harness.kick(0);
    for queue in [2, 0xffff, 0x1_0000, u32::MAX] {
        harness.kick(queue);
    }
    assert_eq!(*seen.processed.lock().unwrap(), [DeviceEvent::Queue(0)]);
    harness.kick(0);
    assert_eq!(seen.processed.lock().unwrap().len(), 2, "each notification counts");
    assert!(!harness.run_once(std::time::Duration::ZERO), "and counts once");
}

#[test]
fn an_error_stops_the_device_until_it_is_reset() {
    let (mut harness, seen) = started();
    harness.kick(1);
    assert!(harness.needs_reset());
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 2, "configuration change");
    assert_eq!(seen.deactivations.load(Ordering::SeqCst), 1);
    harness.kick(0);
    assert_eq!(seen.processed.lock().unwrap().len(), 1, "stopped");
    assert_eq!(set_status(&harness, 0xf) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(harness.core().metrics().needs_reset.get(), 1);

    harness.start(0, 16);
    assert!(!harness.needs_reset());
    harness.kick(0);
    assert_eq!(seen.processed.lock().unwrap().len(), 2, "goes on");
}

#[test]
fn reset_puts_every_register_back() {
    let (harness, seen) = started();
    seen.interrupt.lock().unwrap().as_ref().unwrap().signal_queue(0);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    assert_eq!(set_status(&harness, 0), 0);
    assert_eq!(seen.deactivations.load(Ordering::SeqCst), 1);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_QUEUE_READY), 0);
    assert_eq!(set_status(&harness, 0), 0);
    assert_eq!(seen.deactivations.load(Ordering::SeqCst), 1, "a second reset finds nothing to stop");
}

#[test]
fn interrupt_causes_stay_until_they_are_acknowledged() {
    let (harness, seen) = started();
    let interrupt = seen.interrupt.lock().unwrap().clone().unwrap();
    let generation = harness.read(mmio::VIRTIO_MMIO_CONFIG_GENERATION);
    interrupt.signal_queue(0);
    interrupt.signal_config_change();
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    assert_ne!(harness.read(mmio::VIRTIO_MMIO_CONFIG_GENERATION), generation);
    harness.write(mmio::VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(harness.read(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    assert_eq!(harness.interrupts(), 2);
}

#[test]
fn configuration_space_takes_any_width_and_writes_only_from_a_driver() {
    let (harness, seen) = device();
    assert_eq!(harness.config(1, 2), [0xa1, 0xa2]);
    assert_eq!(harness.config(3, 4), [0xa3, 0, 0, 0]);
    harness.write(mmio::VIRTIO_MMIO_CONFIG, 1);
    assert_eq!(seen.config_writes.load(Ordering::SeqCst), 0);
    set_status(&harness, ACKNOWLEDGE | DRIVER);
    harness.write(mmio::VIRTIO_MMIO_CONFIG, 1);
    assert_eq!(seen.config_writes.load(Ordering::SeqCst), 1);
}

#[test]
fn every_register_at_every_width_and_offset_is_harmless_in_every_state() {
    let prepare: [fn(&mut Harness); 4] = [
        |_| {},
        |harness| harness.negotiate(VERSION_1),
        |harness| harness.start(EVENT_IDX, 16),
        |harness| {
            harness.start(0, 16);
            harness.add_chain(0, &[Buffer::readable(0, 1)]);
            harness.kick(1);
        },
    ];
    for prepare in prepare {
        let (mut harness, _) = device();
        prepare(&mut harness);
        for offset in (0..0x120).chain([0xfff, 0x1000, u64::from(u32::MAX) + 1, u64::MAX]) {
            for width in 1..=8 {
                harness.transport().read(offset, &mut vec![0xaa; width]);
                for byte in [0, 1, 0x7f, 0xff] {
                    let _ = harness.transport().write(offset, &vec![byte; width]);
                }
                while harness.run_once(std::time::Duration::ZERO) {}
            }
        }
        harness.start(0, 16);
        assert!(!harness.needs_reset(), "a reset always helps");
    }
}

#[test]
fn narrow_and_unaligned_accesses_below_the_configuration_space_do_nothing() {
    let (harness, _) = device();
    for (offset, width) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (0x70, 2)] {
        let mut data = vec![0xaa; width];
        harness.transport().read(offset, &mut data);
        assert_eq!(data, vec![0; width], "{offset:#x} by {width}");
    }
    let _ = harness.transport().write(0x70, &[1]);
    let _ = harness.transport().write(0x70, &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(harness.status(), 0);
}
