//! The keyboard controller (Intel 8042) with a keyboard and no mouse: Ctrl-Alt-Del for the guest, reset for the VM.
//!
//! It answers at once, so that a driver's probe has nothing to wait for: Linux's `i8042` and `atkbd` find the
//! keyboard, and learn that there is no mouse, without one of their time-outs. Port 0x61, in the middle of the range,
//! is the system control port; enough of it is there for a kernel that reads it in an NMI or while it calibrates a
//! clock.
//!
//! The commands are those of the IBM PC AT's keyboard controller and of its keyboard (scan code set 2, which the
//! controller translates to set 1 when the driver asks for it).

mod keyboard;
mod state;

use std::io;
use std::sync::{Arc, Mutex};

use crate::bus::{BusAction, BusDevice, byte_registers};
use crate::interrupt::Interrupt;
use crate::lock;
use crate::metrics::I8042Metrics;
use keyboard::Keyboard;
pub use keyboard::KeyboardStateV1;
pub use state::{I8042StateV1, PendingV1};

/// Number of I/O ports from 0x60 on.
pub const SIZE: u64 = 5;

/// Offset of the data port, 0x60.
const DATA: u64 = 0;
/// Offset of the system control port, 0x61.
const SYSTEM_CONTROL: u64 = 1;
/// Offset of the status and command port, 0x64.
const COMMAND: u64 = 4;

/// Status: a byte waits at the data port.
const STATUS_OUTPUT_FULL: u8 = 1 << 0;
/// Status: the self test passed.
const STATUS_SYSTEM: u8 = 1 << 2;
/// Status: the last write went to the command port.
const STATUS_COMMAND: u8 = 1 << 3;
/// Status: the keyboard is not locked.
const STATUS_UNLOCKED: u8 = 1 << 4;

/// Command byte: the keyboard interrupts.
const CONTROL_KEYBOARD_INTERRUPT: u8 = 1 << 0;
/// Command byte: the self test passed.
const CONTROL_SYSTEM: u8 = 1 << 2;
/// Command byte: the keyboard is disabled.
const CONTROL_KEYBOARD_DISABLED: u8 = 1 << 4;
/// Command byte: the mouse is disabled.
const CONTROL_MOUSE_DISABLED: u8 = 1 << 5;
/// Command byte: scan codes are translated from set 2 to set 1.
const CONTROL_TRANSLATE: u8 = 1 << 6;

/// Output port: 0 holds the processor in reset.
const OUTPUT_PORT_RESET: u8 = 1 << 0;
/// Output port: address line 20 is not masked.
const OUTPUT_PORT_A20: u8 = 1 << 1;

/// Replies that can wait for the guest. A controller holds one and a keyboard 16; what does not fit is dropped.
const OUTPUT_LEN: usize = 32;

/// A command to the controller that waits for its data byte.
#[derive(Clone, Copy)]
enum Pending {
    WriteControl,
    WriteOutputPort,
    WriteKeyboardOutput,
    MouseLoopback,
    WriteMouse,
    Ignore,
}

struct Controller {
    control: u8,
    last_write_was_command: bool,
    pending: Option<Pending>,
    output: Vec<u8>,
    keyboard: Keyboard,
    /// The bits of the system control port that software sets (timer 2 gate, speaker), and the refresh bit that
    /// toggles.
    system_control: u8,
}

impl Controller {
    fn push(&mut self, bytes: &[u8]) {
        let room = OUTPUT_LEN.saturating_sub(self.output.len());
        self.output.extend(bytes.iter().take(room));
    }

    fn interrupt_due(&self) -> bool {
        !self.output.is_empty() && self.control & CONTROL_KEYBOARD_INTERRUPT != 0
    }

    fn status(&self) -> u8 {
        let full = if self.output.is_empty() { 0 } else { STATUS_OUTPUT_FULL };
        let command = if self.last_write_was_command { STATUS_COMMAND } else { 0 };
        full | command | STATUS_SYSTEM | STATUS_UNLOCKED
    }

    fn read_data(&mut self) -> u8 {
        if self.output.is_empty() { 0 } else { self.output.remove(0) }
    }

    /// Timer 2's output (bit 5) is always high: a kernel that polls for it must not wait for ever. No NMI reason is
    /// set.
    fn read_system_control(&mut self) -> u8 {
        self.system_control ^= 1 << 4;
        self.system_control | 1 << 5
    }

    fn write_command(&mut self, command: u8) -> BusAction {
        self.last_write_was_command = true;
        self.pending = None;
        match command {
            0x20 => self.push(&[self.control]),
            0x60 => self.pending = Some(Pending::WriteControl),
            0x61..=0x7f => self.pending = Some(Pending::Ignore),
            0xa7 => self.control |= CONTROL_MOUSE_DISABLED,
            0xa8 => self.control &= !CONTROL_MOUSE_DISABLED,
            // Mouse interface test: its clock line is stuck low, for there is no mouse.
            0xa9 => self.push(&[0x01]),
            // Self test: passed.
            0xaa => {
                self.control |= CONTROL_SYSTEM;
                self.push(&[0x55]);
            }
            // The rest of the memory, which is empty; and the keyboard interface test: no error.
            0x21..=0x3f | 0xab => self.push(&[0x00]),
            0xad => self.control |= CONTROL_KEYBOARD_DISABLED,
            0xae => self.control &= !CONTROL_KEYBOARD_DISABLED,
            // Input port: the keyboard is not inhibited.
            0xc0 => self.push(&[0x80]),
            0xd0 => self.push(&[OUTPUT_PORT_RESET | OUTPUT_PORT_A20]),
            0xd1 => self.pending = Some(Pending::WriteOutputPort),
            0xd2 => self.pending = Some(Pending::WriteKeyboardOutput),
            0xd3 => self.pending = Some(Pending::MouseLoopback),
            0xd4 => self.pending = Some(Pending::WriteMouse),
            // Pulses the lines of the output port whose bit is 0; line 0 is the processor's reset.
            0xf0..=0xff if command & OUTPUT_PORT_RESET == 0 => return BusAction::Reset,
            _ => {}
        }
        BusAction::None
    }

    fn write_data(&mut self, value: u8) -> BusAction {
        self.last_write_was_command = false;
        match self.pending.take() {
            Some(Pending::WriteControl) => self.control = value,
            Some(Pending::WriteOutputPort) if value & OUTPUT_PORT_RESET == 0 => return BusAction::Reset,
            // The loop-back byte comes back without the status bit that marks a mouse's: there is no mouse port.
            Some(Pending::WriteKeyboardOutput | Pending::MouseLoopback) => self.push(&[value]),
            Some(Pending::WriteMouse) => self.push(&[keyboard::RESEND]),
            Some(Pending::WriteOutputPort | Pending::Ignore) => {}
            None => {
                // A byte for the keyboard switches it on again.
                self.control &= !CONTROL_KEYBOARD_DISABLED;
                let translated = self.control & CONTROL_TRANSLATE != 0;
                let reply = self.keyboard.command(value, translated);
                self.push(reply.as_slice());
            }
        }
        BusAction::None
    }
}

/// The keyboard controller on ports 0x60 to 0x64.
pub struct I8042 {
    controller: Mutex<Controller>,
    interrupt: Arc<dyn Interrupt>,
    metrics: Arc<I8042Metrics>,
}

impl I8042 {
    /// A controller as firmware leaves it: keyboard enabled, translation on, no interrupts. `interrupt` is IRQ 1.
    pub fn new(interrupt: Arc<dyn Interrupt>) -> Self {
        let controller = Controller {
            control: CONTROL_SYSTEM | CONTROL_MOUSE_DISABLED | CONTROL_TRANSLATE,
            last_write_was_command: false,
            pending: None,
            output: Vec::with_capacity(OUTPUT_LEN),
            keyboard: Keyboard::default(),
            system_control: 0,
        };
        Self { controller: Mutex::new(controller), interrupt, metrics: Arc::default() }
    }

    /// What this controller counts.
    pub fn metrics(&self) -> Arc<I8042Metrics> {
        self.metrics.clone()
    }

    /// Presses and releases Ctrl, Alt and Del.
    ///
    /// # Errors
    /// `NotConnected` when no driver listens to the keyboard, `WouldBlock` when the guest has not read earlier keys,
    /// and what the host says when it cannot deliver the interrupt.
    pub fn send_ctrl_alt_del(&self) -> io::Result<()> {
        let pressed = self.press_ctrl_alt_del();
        let count = if pressed.is_ok() { &self.metrics.ctrl_alt_dels } else { &self.metrics.refused_keys };
        count.increment();
        pressed
    }

    fn press_ctrl_alt_del(&self) -> io::Result<()> {
        let mut controller = lock(&self.controller);
        let listening = controller.control & CONTROL_KEYBOARD_INTERRUPT != 0
            && controller.control & CONTROL_KEYBOARD_DISABLED == 0
            && controller.keyboard.scanning();
        if !listening {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the guest has no keyboard driver running",
            ));
        }
        let codes = controller.keyboard.ctrl_alt_del(controller.control & CONTROL_TRANSLATE != 0);
        if OUTPUT_LEN.saturating_sub(controller.output.len()) < codes.len() {
            let message = "the guest does not read its keyboard";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        controller.push(codes);
        self.interrupt.trigger()
    }

    /// Raises IRQ 1 when a byte waits that the driver wants to hear of. Each byte takes an interrupt of its own.
    fn update_interrupt(&self, controller: &Controller) {
        if controller.interrupt_due() {
            // The guest cannot be told: its driver times out and polls.
            if self.interrupt.trigger().is_err() {
                self.metrics.interrupt_failures.increment();
            }
        }
    }

    fn write_register(&self, offset: u64, value: u8) -> BusAction {
        let mut controller = lock(&self.controller);
        let waiting = controller.output.len();
        let interrupting = controller.interrupt_due();
        let action = match offset {
            DATA => controller.write_data(value),
            COMMAND => controller.write_command(value),
            SYSTEM_CONTROL => {
                controller.system_control = (controller.system_control & !3) | (value & 3);
                BusAction::None
            }
            _ => BusAction::None,
        };
        if action == BusAction::Reset {
            self.metrics.resets.increment();
        }
        let began = controller.interrupt_due() && !interrupting;
        if began || controller.output.len() > waiting {
            self.update_interrupt(&controller);
        }
        action
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut controller = lock(&self.controller);
        for (register, byte) in byte_registers(offset).zip(data) {
            *byte = match register {
                DATA => {
                    let value = controller.read_data();
                    self.update_interrupt(&controller);
                    value
                }
                SYSTEM_CONTROL => controller.read_system_control(),
                COMMAND => controller.status(),
                _ => 0xff,
            };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> BusAction {
        byte_registers(offset)
            .zip(data)
            .map(|(register, value)| self.write_register(register, *value))
            .find(|action| *action != BusAction::None)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
