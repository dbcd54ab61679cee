//! What a snapshot keeps of a serial port: its registers, and the bytes of both directions that are on their way.
//!
//! Who waits for room, and what was counted, belong to the process and not to the guest.

use serde::{Deserialize, Serialize};
use vm_superio::serial::SerialState;

use super::{FIFO_SIZE, Model, Sent, Serial};
use crate::lock;
use crate::state::StateError;

/// Bytes that a guest can have sent and nobody has written. An instruction sends 4 KiB at most, and a vCPU that is being
/// paused completes one.
pub const MAX_UNWRITTEN: usize = 256 << 10;

/// A serial port's state, as it is in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialStateV1 {
    /// Divisor latch, low byte.
    pub baud_divisor_low: u8,
    /// Divisor latch, high byte.
    pub baud_divisor_high: u8,
    /// Interrupt enable register.
    pub interrupt_enable: u8,
    /// Interrupt identification register.
    pub interrupt_identification: u8,
    /// Line control register.
    pub line_control: u8,
    /// Line status register.
    pub line_status: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Modem status register.
    pub modem_status: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Receive FIFO: what the guest has not read yet, oldest first; 64 bytes at most.
    pub received: Vec<u8>,
    /// What the guest has sent and nobody has written yet, oldest first; [`MAX_UNWRITTEN`] at most.
    pub unwritten: Vec<u8>,
}

impl Serial {
    /// The state of the port. No vCPU may be in it: they are paused.
    pub fn save(&self) -> SerialStateV1 {
        let output = lock(&self.output);
        let port = lock(&self.port);
        let SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer,
        } = port.model.state();
        let held_back = output.held_back().iter().copied();
        SerialStateV1 {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            received: in_buffer,
            unwritten: held_back.chain(port.model.writer().0.iter().copied()).collect(),
        }
    }

    /// Takes the state of a port that was saved. What it had not written is written before the next byte that the
    /// guest sends; nothing is written here, for that can block. An interrupt that the guest has not acknowledged is
    /// raised once more.
    ///
    /// # Errors
    /// When there are more bytes on their way than a port can have.
    pub fn restore(&self, state: &SerialStateV1) -> Result<(), StateError> {
        let SerialStateV1 { received, unwritten, .. } = state;
        for (what, len, most) in [
            ("bytes received", received.len(), FIFO_SIZE),
            ("bytes that were not written", unwritten.len(), MAX_UNWRITTEN),
        ] {
            if len > most {
                return Err(StateError::new(format!("{len} {what}: there can be {most}")));
            }
        }
        let registers = SerialState {
            baud_divisor_low: state.baud_divisor_low,
            baud_divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: received.clone(),
        };
        let mut port = lock(&self.port);
        let (line, events) = (port.model.interrupt_evt().clone(), port.model.events().clone());
        let sent = Sent(unwritten.iter().copied().collect());
        port.model = Model::from_state(&registers, line, events, sent)
            .map_err(|error| StateError::new(error.to_string()))?;
        Ok(())
    }
}
