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
    bytes.iter().for_each(|byte| data(device, *byte));
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
