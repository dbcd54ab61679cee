//! What a snapshot keeps of the console.
//!
//! What the device has taken from the driver is the host's to write, and stays with the VM that goes on. A buffer that was
//! begun is taken again by a restored device, which passes on the rest.

use serde::{Deserialize, Serialize};

use super::device::INPUT_CAPACITY;
use crate::state::StateError;

/// The device's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleStateV1 {
    /// Input that the driver has not taken yet, oldest first; [`INPUT_CAPACITY`] bytes at most.
    pub input: Vec<u8>,
    /// Bytes that were passed on of the buffer that the driver makes available next in the transmit queue.
    pub begun: u64,
    /// Width of the terminal in characters; 0 when it is not known.
    pub columns: u16,
    /// Height of the terminal in characters; 0 when it is not known.
    pub rows: u16,
}

impl ConsoleStateV1 {
    /// Checks what can be wrong with it.
    ///
    /// # Errors
    /// When there is more input than a console holds.
    pub(super) fn validate(&self) -> Result<(), StateError> {
        let len = self.input.len();
        if len > INPUT_CAPACITY {
            return Err(StateError::new(format!("{len} bytes of input: a console holds {INPUT_CAPACITY}")));
        }
        Ok(())
    }
}
