//! A guest that reads and writes anything in the registers of serial port, keyboard controller, ACPI power and panic
//! notifier, at any offset and width, while input comes from the host.
//!
//! Holds: no panic, no hang, no growth; the serial port passes bytes on in order, in both directions, and announces those that
//! wait; only what is a reset or a power-off asks the VM for one; and a driver that starts the keyboard afterwards gets its
//! answers and Ctrl-Alt-Del.
#![no_main]

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::bus::{BusAction, BusDevice};
use devices::interrupt::FakeInterrupt;
use devices::legacy::acpi_power::AcpiPower;
use devices::legacy::i8042::I8042;
use devices::legacy::pvpanic::Pvpanic;
use devices::legacy::serial::{Serial, SerialOutput};
use libfuzzer_sys::fuzz_target;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const FIFO_SIZE: usize = 64;
/// Registers of the serial port (16550), and their bits.
const DATA: u64 = 0;
const IER: u64 = 1;
const IER_RDA: u8 = 1;
const IIR: u64 = 2;
const IIR_ID: u8 = 0xf;
const IIR_NONE: u8 = 1;
const LCR: u64 = 3;
const LCR_DLAB: u8 = 1 << 7;
const MCR: u64 = 4;
const MCR_LOOP: u8 = 1 << 4;
const LSR: u64 = 5;
const LSR_DATA_READY: u8 = 1;
/// Registers of the keyboard controller: ports 0x60 and 0x64.
const KEYBOARD: u64 = 0;
const COMMAND: u64 = 4;

#[derive(Arbitrary, Debug)]
enum Step {
    /// One register, as most drivers access them.
    Read {
        device: Device,
        register: u8,
    },
    Write {
        device: Device,
        register: u8,
        value: u8,
    },
    /// Any offset, any width.
    ReadWide {
        device: Device,
        offset: u64,
        len: u8,
    },
    WriteWide {
        device: Device,
        offset: u64,
        data: [u8; 8],
        len: u8,
    },
    Type(Vec<u8>),
    Room,
    CtrlAltDel,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Serial,
    I8042,
    AcpiPower,
    Pvpanic,
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl SerialOutput for Output {}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a 16550 would have.
#[derive(Default)]
struct Model {
    ier: u8,
    lcr: u8,
    mcr: u8,
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl Model {
    fn write(&mut self, register: u64, value: u8) {
        match register {
            DATA | IER if self.lcr & LCR_DLAB != 0 => {}
            DATA if self.mcr & MCR_LOOP == 0 => self.output.push(value),
            DATA if self.input.len() < FIFO_SIZE => self.input.push_back(value),
            IER => self.ier = value,
            LCR => self.lcr = value,
            MCR => self.mcr = value,
            _ => {}
        }
    }

    /// Holds what was read against what it should be.
    fn check_read(&mut self, register: u64, value: u8) {
        let divisor = self.lcr & LCR_DLAB != 0;
        match register {
            DATA if !divisor => assert_eq!(value, self.input.pop_front().unwrap_or_default()),
            IIR if !self.input.is_empty() && !divisor && self.ier & IER_RDA != 0 => {
                assert_ne!(value & IIR_ID, IIR_NONE, "received data is not announced");
            }
            LCR => assert_eq!(value, self.lcr),
            MCR => assert_eq!(value, self.mcr),
            LSR => assert_eq!(value & LSR_DATA_READY != 0, !self.input.is_empty()),
            8.. => assert_eq!(value, 0xff),
            _ => {}
        }
    }

    fn room(&self) -> usize {
        if self.mcr & MCR_LOOP == 0 { FIFO_SIZE - self.input.len() } else { 0 }
    }
}

struct Guest {
    serial: Serial,
    output: Output,
    model: Model,
    i8042: I8042,
    keyboard_interrupt: Arc<FakeInterrupt>,
    acpi_power: AcpiPower,
    pvpanic: Pvpanic,
}

impl Guest {
    fn new() -> Self {
        let (output, keyboard_interrupt) = (Output::default(), Arc::new(FakeInterrupt::default()));
        let serial = Serial::new(Arc::new(FakeInterrupt::default()), Box::new(output.clone()));
        let mut lcr_and_mcr = [0; 2];
        serial.read(LCR, &mut lcr_and_mcr);
        let [lcr, mcr] = lcr_and_mcr;
        Self {
            serial,
            output,
            model: Model { lcr, mcr, ..Model::default() },
            i8042: I8042::new(keyboard_interrupt.clone()),
            keyboard_interrupt,
            acpi_power: AcpiPower::new(),
            pvpanic: Pvpanic::default(),
        }
    }

    fn device(&self, device: Device) -> &dyn BusDevice {
        match device {
            Device::Serial => &self.serial,
            Device::I8042 => &self.i8042,
            Device::AcpiPower => &self.acpi_power,
            Device::Pvpanic => &self.pvpanic,
        }
    }

    fn read(&mut self, device: Device, offset: u64, data: &mut [u8]) {
        self.device(device).read(offset, data);
        if device == Device::Serial {
            for (register, value) in registers(offset).zip(data) {
                self.model.check_read(register, *value);
            }
        }
    }

    fn write(&mut self, device: Device, offset: u64, data: &[u8]) {
        let action = self.device(device).write(offset, data);
        let mut written = registers(offset).zip(data);
        match device {
            Device::Serial => {
                assert_eq!(action, BusAction::None);
                written.for_each(|(register, value)| self.model.write(register, *value));
            }
            Device::I8042 => {
                // By a command, or by the data of one before.
                let may =
                    written.any(|(register, value)| matches!(register, KEYBOARD | COMMAND) && value & 1 == 0);
                assert!(action == BusAction::None || (may && action == BusAction::Reset), "{action:?}");
            }
            Device::AcpiPower => {
                let expected = written.find_map(|(register, value)| match (register, value & 0x3c) {
                    (0, 0x34) => Some(BusAction::Shutdown),
                    (2, _) if *value == 1 => Some(BusAction::Reset),
                    _ => None,
                });
                assert_eq!(action, expected.unwrap_or(BusAction::None));
            }
            Device::Pvpanic => assert_eq!(action, BusAction::None),
        }
    }

    fn type_bytes(&mut self, bytes: &[u8]) {
        let taken = self.serial.enqueue(bytes);
        assert_eq!(taken, bytes.len().min(self.model.room()));
        self.model.input.extend(&bytes[..taken]);
    }

    fn read_keyboard(&self) -> u8 {
        let mut byte = [0];
        self.i8042.read(KEYBOARD, &mut byte);
        byte[0]
    }

    /// A byte for the keyboard, and what it answers.
    fn ask_keyboard(&mut self, byte: u8) -> u8 {
        self.write(Device::I8042, KEYBOARD, &[byte]);
        self.read_keyboard()
    }
}

/// The registers that an access at `offset` touches, up to the last that there can be.
fn registers(offset: u64) -> impl Iterator<Item = u64> {
    (0..8).map(move |byte| offset.saturating_add(byte))
}

fuzz_target!(|steps: Vec<Step>| {
    let mut guest = Guest::new();
    let room_event = EventFd::new(EFD_NONBLOCK).unwrap();
    guest.serial.set_drain_notifier(room_event.try_clone().unwrap());
    for step in steps.into_iter().take(256) {
        match step {
            Step::Read { device, register } => guest.read(device, u64::from(register % 9), &mut [0]),
            Step::Write { device, register, value } => guest.write(device, u64::from(register % 9), &[value]),
            Step::ReadWide { device, offset, len } => {
                guest.read(device, offset, &mut vec![0; 1 + usize::from(len % 8)]);
            }
            Step::WriteWide { device, offset, data, len } => {
                guest.write(device, offset, &data[..1 + usize::from(len % 8)]);
            }
            Step::Type(bytes) => guest.type_bytes(&bytes),
            Step::Room => assert_eq!(guest.serial.free_space(), guest.model.room()),
            Step::CtrlAltDel => drop(guest.i8042.send_ctrl_alt_del()),
        }
    }
    assert_eq!(*guest.output.0.lock().unwrap(), guest.model.output);

    // The serial port's driver starts again, and finds what was typed; who types hears of it.
    guest.write(Device::Serial, LCR, &[3]);
    guest.write(Device::Serial, MCR, &[0]);
    guest.type_bytes(&[7; FIFO_SIZE + 1]);
    let _ = room_event.read();
    for _ in 0..=FIFO_SIZE {
        guest.read(Device::Serial, DATA, &mut [0]);
    }
    assert!(room_event.read().is_ok(), "nobody says that there is room");

    // So does the keyboard's: it ends what was begun, empties the controller, has it interrupt and translate.
    guest.write(Device::I8042, COMMAND, &[0x60]);
    guest.write(Device::I8042, KEYBOARD, &[0x41]);
    for _ in 0..64 {
        guest.read_keyboard();
    }
    assert_eq!([guest.ask_keyboard(0xff), guest.read_keyboard()], [0xfa, 0xaa]);
    assert_eq!(guest.ask_keyboard(0xee), 0xee);
    let before = guest.keyboard_interrupt.count();
    guest.i8042.send_ctrl_alt_del().unwrap();
    let keys: Vec<u8> = (0..8).map(|_| guest.read_keyboard()).collect();
    assert_eq!(keys, [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]);
    assert_eq!(guest.keyboard_interrupt.count() - before, keys.len());
});
