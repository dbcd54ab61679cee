//! The keyboard behind the controller: an AT keyboard (scan code set 2) that answers commands and knows three keys.

use serde::{Deserialize, Serialize};

use crate::state::StateError;

/// Reply: command taken.
const ACKNOWLEDGE: u8 = 0xfa;
/// Reply: not understood, send it again.
pub(super) const RESEND: u8 = 0xfe;
/// Reply: self test passed.
const SELF_TEST_PASSED: u8 = 0xaa;

/// Ctrl, Alt and Del pressed, then released, in scan code set 2.
const CTRL_ALT_DEL_SET_2: [u8; 11] = [0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14];
/// The same in scan code set 1, to which a controller translates.
const CTRL_ALT_DEL_SET_1: [u8; 8] = [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d];

/// What a keyboard answers to one byte: at most three bytes.
pub(super) struct Reply {
    bytes: [u8; 3],
    len: usize,
}

impl Reply {
    fn one(byte: u8) -> Self {
        Self { bytes: [byte, 0, 0], len: 1 }
    }

    fn two(first: u8, second: u8) -> Self {
        Self { bytes: [first, second, 0], len: 2 }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The keyboard's state, as it is in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyboardStateV1 {
    /// Keys are reported.
    pub scanning: bool,
    /// 1 or 2.
    pub scan_code_set: u8,
    /// The command that waits for its parameter.
    pub pending: Option<u8>,
    /// What the keyboard said last, which it can be asked to repeat.
    pub last_reply: u8,
}

pub(super) struct Keyboard {
    /// Keys are reported.
    scanning: bool,
    scan_code_set: u8,
    /// The command that waits for its parameter.
    pending: Option<u8>,
    last_reply: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self { scanning: true, scan_code_set: 2, pending: None, last_reply: ACKNOWLEDGE }
    }
}

impl Keyboard {
    pub(super) fn save(&self) -> KeyboardStateV1 {
        let Self { scanning, scan_code_set, pending, last_reply } = *self;
        KeyboardStateV1 { scanning, scan_code_set, pending, last_reply }
    }

    /// # Errors
    /// When it uses a scan code set that there is not. Any byte can be `pending`: one that is no command takes a
    /// parameter that has no effect.
    pub(super) fn restore(state: &KeyboardStateV1) -> Result<Self, StateError> {
        let KeyboardStateV1 { scanning, scan_code_set, pending, last_reply } = *state;
        if !matches!(scan_code_set, 1 | 2) {
            return Err(StateError::new(format!("scan code set {scan_code_set}: the keyboard has 1 and 2")));
        }
        Ok(Self { scanning, scan_code_set, pending, last_reply })
    }

    pub(super) fn scanning(&self) -> bool {
        self.scanning
    }

    pub(super) fn ctrl_alt_del(&self, translated: bool) -> &'static [u8] {
        if translated || self.scan_code_set == 1 { &CTRL_ALT_DEL_SET_1 } else { &CTRL_ALT_DEL_SET_2 }
    }

    /// Takes a byte that the host sent: a command, or the parameter of the one before.
    pub(super) fn command(&mut self, byte: u8, translated: bool) -> Reply {
        let reply = match self.pending.take() {
            // Parameters are below the first command; a command instead of one ends the command before it.
            Some(command) if byte < 0xed => self.parameter(command, byte),
            _ => self.begin(byte, translated),
        };
        self.last_reply = reply.as_slice().last().copied().unwrap_or(RESEND);
        reply
    }

    fn parameter(&mut self, command: u8, value: u8) -> Reply {
        match (command, value) {
            (0xf0, 0) => return Reply::two(ACKNOWLEDGE, self.scan_code_set),
            (0xf0, 1 | 2) => self.scan_code_set = value,
            // Set 3 names keys that this keyboard does not have codes for.
            (0xf0, _) => return Reply::one(RESEND),
            // LEDs, repeat rate, key types: nothing here shows them.
            _ => {}
        }
        Reply::one(ACKNOWLEDGE)
    }

    fn begin(&mut self, command: u8, translated: bool) -> Reply {
        match command {
            // LEDs, scan code set, repeat rate, and the type of single keys take a parameter.
            0xed | 0xf0 | 0xf3 | 0xfb..=0xfd => self.pending = Some(command),
            // Echo.
            0xee => return Reply::one(0xee),
            // Identify: an MF2 keyboard. A controller that translates does so with this as well.
            0xf2 => {
                let id = if translated { 0x41 } else { 0x83 };
                return Reply { bytes: [ACKNOWLEDGE, 0xab, id], len: 3 };
            }
            0xf4 => self.scanning = true,
            0xf5 => {
                *self = Self::default();
                self.scanning = false;
            }
            0xf6 => *self = Self::default(),
            // Key types of all keys: set 3 only.
            0xf7..=0xfa => {}
            0xfe => return Reply::one(self.last_reply),
            0xff => {
                *self = Self::default();
                return Reply::two(ACKNOWLEDGE, SELF_TEST_PASSED);
            }
            _ => return Reply::one(RESEND),
        }
        Reply::one(ACKNOWLEDGE)
    }
}
