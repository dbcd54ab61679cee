//! What a snapshot keeps of the keyboard controller and its keyboard.

use serde::{Deserialize, Serialize};

use super::keyboard::KeyboardStateV1;
use super::{Controller, I8042, OUTPUT_LEN, Pending};
use crate::lock;
use crate::state::StateError;

/// The keyboard controller's state, as it is in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042StateV1 {
    /// Command byte.
    pub control: u8,
    /// The last write went to the command port.
    pub last_write_was_command: bool,
    /// The command that waits for its data byte.
    pub pending: Option<PendingV1>,
    /// Bytes that the guest has not read yet, oldest first; 32 at most.
    pub output: Vec<u8>,
    /// The bits of port 0x61 that software sets, and the one that toggles.
    pub system_control: u8,
    /// The keyboard.
    pub keyboard: KeyboardStateV1,
}

/// A command to the controller that waits for its data byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingV1 {
    /// 0x60: write the command byte.
    WriteControl,
    /// 0xd1: write the output port.
    WriteOutputPort,
    /// 0xd2: as if the keyboard had sent it.
    WriteKeyboardOutput,
    /// 0xd3: as if the mouse had sent it.
    MouseLoopback,
    /// 0xd4: to the mouse.
    WriteMouse,
    /// Of no effect.
    Ignore,
}

impl From<Pending> for PendingV1 {
    fn from(pending: Pending) -> Self {
        match pending {
            Pending::WriteControl => Self::WriteControl,
            Pending::WriteOutputPort => Self::WriteOutputPort,
            Pending::WriteKeyboardOutput => Self::WriteKeyboardOutput,
            Pending::MouseLoopback => Self::MouseLoopback,
            Pending::WriteMouse => Self::WriteMouse,
            Pending::Ignore => Self::Ignore,
        }
    }
}

impl From<PendingV1> for Pending {
    fn from(pending: PendingV1) -> Self {
        match pending {
            PendingV1::WriteControl => Self::WriteControl,
            PendingV1::WriteOutputPort => Self::WriteOutputPort,
            PendingV1::WriteKeyboardOutput => Self::WriteKeyboardOutput,
            PendingV1::MouseLoopback => Self::MouseLoopback,
            PendingV1::WriteMouse => Self::WriteMouse,
            PendingV1::Ignore => Self::Ignore,
        }
    }
}

impl I8042 {
    /// The state of the controller. The vCPUs are paused.
    pub fn save(&self) -> I8042StateV1 {
        let controller = lock(&self.controller);
        let Controller { control, last_write_was_command, pending, output, keyboard, system_control } =
            &*controller;
        I8042StateV1 {
            control: *control,
            last_write_was_command: *last_write_was_command,
            pending: pending.map(PendingV1::from),
            output: output.clone(),
            system_control: *system_control,
            keyboard: keyboard.save(),
        }
    }

    /// Takes the state of a controller that was saved, and raises the interrupt once more if a byte waits that the
    /// driver wants to hear of.
    ///
    /// # Errors
    /// When the state is one that no controller or keyboard can be in.
    pub fn restore(&self, state: &I8042StateV1) -> Result<(), StateError> {
        let I8042StateV1 { control, last_write_was_command, pending, output, system_control, keyboard } =
            state;
        if output.len() > OUTPUT_LEN {
            let len = output.len();
            return Err(StateError::new(format!(
                "{len} bytes wait for the guest: there can be {OUTPUT_LEN}"
            )));
        }
        if system_control & !SYSTEM_CONTROL_BITS != 0 {
            return Err(StateError::new(format!(
                "the system control port holds {system_control:#x}: it has the bits {SYSTEM_CONTROL_BITS:#x}"
            )));
        }
        let restored = Controller {
            control: *control,
            last_write_was_command: *last_write_was_command,
            pending: pending.map(Pending::from),
            output: output.clone(),
            keyboard: super::Keyboard::restore(keyboard)?,
            system_control: *system_control,
        };
        let mut controller = lock(&self.controller);
        *controller = restored;
        self.update_interrupt(&controller);
        Ok(())
    }
}

/// What is kept of port 0x61: timer 2 gate, speaker, and the refresh bit that toggles.
const SYSTEM_CONTROL_BITS: u8 = 0b1_0011;
