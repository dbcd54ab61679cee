use super::*;
use crate::interrupt::FakeInterrupt;

fn i8042() -> (I8042, Arc<FakeInterrupt>) {
    let interrupt = Arc::new(FakeInterrupt::default());
    (I8042::new(interrupt.clone()), interrupt)
}

fn read(device: &I8042, offset: u64) -> u8 {
    let mut data = [0];
    device.read(offset, &mut data);
    data[0]
}

fn command(device: &I8042, command: u8) {
    assert_eq!(device.write(COMMAND, &[command]), BusAction::None);
}

fn data(device: &I8042, value: u8) {
    assert_eq!(device.write(DATA, &[value]), BusAction::None);
}

/// Everything that waits at the data port.
fn replies(device: &I8042) -> Vec<u8> {
    let mut replies = Vec::new();
    while read(device, COMMAND) & STATUS_OUTPUT_FULL != 0 {
        replies.push(read(device, DATA));
    }
    replies
}

fn keyboard(device: &I8042, bytes: &[u8]) -> Vec<u8> {
    for byte in bytes {
        data(device, *byte);
    }
    replies(device)
}

/// What Linux's driver leaves in the command byte.
fn enable_interrupts(device: &I8042) {
    command(device, 0x60);
    data(device, CONTROL_KEYBOARD_INTERRUPT | CONTROL_SYSTEM | CONTROL_TRANSLATE);
}

#[test]
fn a_controller_probe_finds_a_tested_unlocked_controller() {
    let (device, _) = i8042();
    assert_eq!(read(&device, COMMAND) & (STATUS_OUTPUT_FULL | 2), 0, "nothing waits, ready for commands");
    assert_ne!(read(&device, COMMAND) & STATUS_UNLOCKED, 0);
    command(&device, 0xaa);
    assert_eq!(replies(&device), [0x55]);
    command(&device, 0xab);
    assert_eq!(replies(&device), [0x00]);
    command(&device, 0x20);
    let control = replies(&device);
    assert_eq!(control[0] & (CONTROL_TRANSLATE | CONTROL_KEYBOARD_INTERRUPT), CONTROL_TRANSLATE);
    command(&device, 0x60);
    data(&device, 0x47);
    command(&device, 0x20);
    assert_eq!(replies(&device), [0x47]);
}

#[test]
fn a_mouse_probe_learns_at_once_that_there_is_none() {
    let (device, _) = i8042();
    command(&device, 0xd3);
    data(&device, 0x5a);
    assert_eq!(read(&device, COMMAND) & 0x20, 0, "the byte does not come from a mouse port");
    assert_eq!(replies(&device), [0x5a]);
    command(&device, 0xa9);
    let test = replies(&device);
    assert!(!matches!(test[..], [0 | 0xfa | 0xff]), "the interface test fails: {test:x?}");
    command(&device, 0xd4);
    data(&device, 0xff);
    assert_eq!(replies(&device), [0xfe], "nobody is left to wait for a mouse");
}

#[test]
fn the_keyboard_answers_what_a_driver_asks() {
    let (device, _) = i8042();
    let exchanges: [(&[u8], &[u8]); 14] = [
        (&[0xff], &[0xfa, 0xaa]),
        (&[0xf2], &[0xfa, 0xab, 0x41]),
        (&[0xf5], &[0xfa]),
        (&[0xed, 0x07], &[0xfa, 0xfa]),
        (&[0xf3, 0x00], &[0xfa, 0xfa]),
        (&[0xf0, 0x00], &[0xfa, 0xfa, 2]),
        (&[0xf0, 0x02], &[0xfa, 0xfa]),
        (&[0xf0, 0x03], &[0xfa, 0xfe]),
        (&[0xed, 0xf4], &[0xfa, 0xfa]),
        (&[0xee], &[0xee]),
        (&[0xfe], &[0xee]),
        (&[0xf6], &[0xfa]),
        (&[0xf4], &[0xfa]),
        (&[0x00], &[0xfe]),
    ];
    for (sent, expected) in exchanges {
        assert_eq!(keyboard(&device, sent), expected, "{sent:x?}");
    }
    command(&device, 0x60);
    data(&device, 0);
    assert_eq!(keyboard(&device, &[0xf2]), [0xfa, 0xab, 0x83], "not translated");
}

#[test]
fn each_byte_that_waits_raises_an_interrupt_of_its_own_once_the_driver_wants_them() {
    let (device, interrupt) = i8042();
    assert_eq!(keyboard(&device, &[0xf2]).len(), 3);
    assert_eq!(interrupt.count(), 0);
    enable_interrupts(&device);
    data(&device, 0xf2);
    assert_eq!(interrupt.count(), 1);
    read(&device, DATA);
    read(&device, DATA);
    assert_eq!(interrupt.count(), 3);
    read(&device, DATA);
    assert_eq!(interrupt.count(), 3, "nothing is left");
}

#[test]
fn ctrl_alt_del_needs_a_driver_and_then_comes_as_scan_codes() {
    let (device, interrupt) = i8042();
    assert_eq!(device.send_ctrl_alt_del().unwrap_err().kind(), io::ErrorKind::NotConnected);
    enable_interrupts(&device);
    device.send_ctrl_alt_del().unwrap();
    assert_eq!(interrupt.count(), 1);
    assert_eq!(replies(&device), [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]);

    command(&device, 0x60);
    data(&device, CONTROL_KEYBOARD_INTERRUPT);
    device.send_ctrl_alt_del().unwrap();
    assert_eq!(replies(&device)[..4], [0x14, 0x11, 0xe0, 0x71]);

    keyboard(&device, &[0xf5]);
    assert_eq!(device.send_ctrl_alt_del().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn a_guest_that_never_reads_its_keyboard_fills_no_memory() {
    let (device, _) = i8042();
    enable_interrupts(&device);
    (0..1000).for_each(|_| data(&device, 0xf2));
    assert_eq!(device.send_ctrl_alt_del().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(replies(&device).len(), OUTPUT_LEN);
}

#[test]
fn reset_comes_by_pulse_or_by_the_output_port() {
    let (device, _) = i8042();
    assert_eq!(device.write(COMMAND, &[0xfe]), BusAction::Reset);
    assert_eq!(device.write(COMMAND, &[0xff]), BusAction::None, "pulses no line");
    command(&device, 0xd0);
    assert_eq!(replies(&device), [0x03]);
    command(&device, 0xd1);
    data(&device, 0x03);
    command(&device, 0xd1);
    assert_eq!(device.write(DATA, &[0x02]), BusAction::Reset);
}

#[test]
fn the_system_control_port_ends_a_poll_for_timer_2_and_reports_no_nmi() {
    let (device, _) = i8042();
    assert_eq!(device.write(SYSTEM_CONTROL, &[0xfd]), BusAction::None);
    let (first, second) = (read(&device, SYSTEM_CONTROL), read(&device, SYSTEM_CONTROL));
    assert_eq!(first & 0x20, 0x20);
    assert_eq!(first & 0xc0, 0);
    assert_eq!(first & 3, 1);
    assert_eq!((first ^ second) & 0x10, 0x10, "refresh toggles");
}

#[test]
fn every_width_at_every_offset_is_harmless() {
    let (device, _) = i8042();
    for offset in (0..SIZE + 2).chain([u64::MAX]) {
        for width in 1..=8 {
            for byte in 0..=u8::MAX {
                let _ = device.write(offset, &vec![byte; width]);
                device.read(offset, &mut vec![0; width]);
            }
        }
    }
}

/// A controller with the state of `saved`.
fn restored(saved: &I8042) -> (I8042, Arc<FakeInterrupt>) {
    let (device, interrupt) = i8042();
    device.restore(&saved.save()).unwrap();
    (device, interrupt)
}

#[test]
fn a_restored_controller_goes_on_where_the_saved_one_was_at_every_step_of_a_driver() {
    // What a driver writes, to the command port (true) and to the data port; its replies are read at the end.
    let steps: [(bool, u8); 18] = [
        (true, 0x60),
        (false, 0x45),
        (false, 0xf2),
        (true, 0xd3),
        (false, 0x5a),
        (true, 0xd2),
        (false, 0x11),
        (true, 0xd4),
        (false, 0xff),
        (false, 0xf0),
        (false, 0x01),
        (false, 0xed),
        (false, 0x07),
        (false, 0xf5),
        (false, 0xfe),
        (true, 0x61),
        (false, 0x99),
        (true, 0x20),
    ];
    let write = |device: &I8042, (to_command, value): (bool, u8)| {
        if to_command { command(device, value) } else { data(device, value) }
    };
    for done in 0..=steps.len() {
        let (device, _) = i8042();
        steps[..done].iter().for_each(|step| write(&device, *step));
        let (copy, _) = restored(&device);
        assert_eq!(copy.save(), device.save());
        assert_eq!(read(&copy, COMMAND), read(&device, COMMAND));
        assert_eq!(read(&copy, SYSTEM_CONTROL), read(&device, SYSTEM_CONTROL));
        for device in [&device, &copy] {
            steps[done..].iter().for_each(|step| write(device, *step));
        }
        assert_eq!(replies(&copy), replies(&device), "saved after {done} steps");
        assert_eq!(copy.save(), device.save());
    }
}

#[test]
fn a_key_that_the_guest_has_not_read_interrupts_it_again_after_a_restore() {
    let (device, _) = i8042();
    enable_interrupts(&device);
    assert_eq!(restored(&device).1.count(), 0);
    device.send_ctrl_alt_del().unwrap();
    let (copy, interrupt) = restored(&device);
    assert_eq!(interrupt.count(), 1);
    assert_eq!(replies(&copy), [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]);
}

#[test]
fn a_state_that_no_controller_can_be_in_is_refused_and_changes_nothing() {
    let (device, _) = i8042();
    let state = device.save();
    let refused = |change: &dyn Fn(&mut I8042StateV1)| {
        let mut hostile = state.clone();
        change(&mut hostile);
        let message = device.restore(&hostile).unwrap_err().to_string();
        assert_eq!(device.save(), state);
        message
    };
    assert_eq!(refused(&|state| state.output = vec![0; 33]), "33 bytes wait for the guest: there can be 32");
    assert_eq!(
        refused(&|state| state.keyboard.scan_code_set = 3),
        "scan code set 3: the keyboard has 1 and 2"
    );
    assert_eq!(
        refused(&|state| state.system_control = 0xff),
        "the system control port holds 0xff: it has the bits 0x13"
    );
}

#[test]
fn any_bytes_of_a_state_are_harmless() {
    for byte in 0..=u8::MAX {
        let (device, _) = i8042();
        let mut state = device.save();
        state.control = byte;
        state.output = vec![byte; OUTPUT_LEN];
        state.keyboard = KeyboardStateV1 { pending: Some(byte), last_reply: byte, ..state.keyboard };
        device.restore(&state).unwrap();
        let _ = device.send_ctrl_alt_del();
        let _ = device.write(DATA, &[1, 2, 3, 4, 5]);
        assert!(replies(&device).len() <= OUTPUT_LEN);
    }
}
