//! Guests that are saved in the middle of an access to a device.

use std::time::{Duration, Instant};

use super::{IN, Machine, OUT, RESET, Write};
use crate::vcpu::{GuestEvent, SaveError};

/// All bytes that were written at `offset`.
fn bytes_of(written: &[Write], offset: u64) -> Vec<u8> {
    written.iter().filter(|write| write.offset == offset).flat_map(|write| write.bytes.clone()).collect()
}

#[track_caller]
fn assert_counts(bytes: &[u8]) {
    assert!(bytes.len() > 1);
    for (at, pair) in bytes.windows(2).enumerate() {
        assert_eq!(pair[1], pair[0].wrapping_add(1), "byte {at} of {}", bytes.len());
    }
}

/// Runs `code`, which writes bytes that count up for ever, and hands it on ten times from one VM to the next.
fn count_across_ten_restores(code: &[u8]) {
    let Some(mut machine) = Machine::boot(code) else { return };
    for _ in 0..10 {
        machine.wait_for(100);
        machine.pause();
        let twin = machine.twin();
        machine.leave();
        machine = twin.start();
    }
    machine.wait_for(100);
    assert_counts(&bytes_of(&machine.stop(), 0));
}

#[test]
fn a_guest_that_writes_ports_goes_on_with_the_next_byte() {
    // 1: inc ax; out OUT, al; jmp 1b
    count_across_ten_restores(&[0x40, 0xe6, OUT as u8, 0xeb, 0xfb]);
}

#[test]
fn a_port_that_was_read_is_not_read_again() {
    // 1: in al, IN; out OUT, al; jmp 1b
    count_across_ten_restores(&[0xe4, IN as u8, 0xe6, OUT as u8, 0xeb, 0xfa]);
}

#[test]
fn a_string_of_port_reads_is_neither_cut_nor_repeated() {
    // 1: mov di, 0x2000; mov cx, 3000; mov dx, IN; rep insb; mov si, 0x2000; mov cx, 3000; mov dx, OUT; rep outsb; jmp 1b
    count_across_ten_restores(&[
        0xbf, 0x00, 0x20, 0xb9, 0xb8, 0x0b, 0xba, IN as u8, 0x00, 0xf3, 0x6c, 0xbe, 0x00, 0x20, 0xb9, 0xb8,
        0x0b, 0xba, OUT as u8, 0x00, 0xf3, 0x6e, 0xeb, 0xe8,
    ]);
}

#[test]
fn an_access_to_device_memory_in_two_parts_is_done_once() {
    // mov ax, 0xa000; mov es, ax; 1: mov eax, es:[0x0ffe]; out OUT, eax; jmp 1b: across a page, so two exits
    count_across_ten_restores(&[
        0xb8, 0x00, 0xa0, 0x8e, 0xc0, 0x26, 0x66, 0xa1, 0xfe, 0x0f, 0x66, 0xe7, OUT as u8, 0xeb, 0xf6,
    ]);
}

#[test]
fn a_guest_that_was_saved_goes_on_as_if_nothing_had_happened() {
    let Some(machine) = Machine::boot(&[0x40, 0xe6, OUT as u8, 0xeb, 0xfb]) else { return };
    for _ in 0..10 {
        machine.wait_for(50);
        machine.pause();
        machine.save().unwrap();
        machine.save().unwrap();
        machine.resume();
    }
    machine.wait_for(50);
    assert_counts(&bytes_of(&machine.stop(), 0));
}

#[test]
fn a_running_guest_is_not_saved() {
    let Some(machine) = Machine::boot(&[0xeb, 0xfe]) else { return };
    assert!(matches!(machine.save(), Err(SaveError::Running(0))));
    machine.stop();
}

#[test]
fn a_guest_that_has_ended_is_not_saved() {
    // out RESET, al
    let Some(machine) = Machine::boot(&[0xe6, RESET as u8, 0xeb, 0xfe]) else { return };
    let deadline = Instant::now() + Duration::from_mins(1);
    while !matches!(machine.events.take(), Some(GuestEvent::Reset)) {
        assert!(Instant::now() < deadline, "the guest does not reset");
        std::thread::sleep(Duration::from_millis(1));
    }
    machine.pause();
    assert!(matches!(machine.save(), Err(SaveError::Ended(0) | SaveError::Running(0))));
    machine.stop();
}

#[test]
fn every_vcpu_goes_on_with_its_own_next_byte() {
    // 1: inc ax; out dx, al; jmp 1b
    let Some(machine) = Machine::loaded(&[0x40, 0xee, 0xeb, 0xfc], 2) else { return };
    let mut machine = machine.start();
    for _ in 0..10 {
        machine.wait_for(200);
        machine.pause();
        let twin = machine.twin();
        machine.leave();
        machine = twin.start();
    }
    let written = machine.stop();
    for offset in [0, 1] {
        assert_counts(&bytes_of(&written, offset));
    }
}
