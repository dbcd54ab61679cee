//! What a Generic Event Device (ACPI 6.5, 5.6.9) tells the guest of: one register that says which events there are, and an
//! interrupt that has the guest read it. The DSDT says what each of its bits notifies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::bus::{BusAction, BusDevice, byte_registers};
use crate::interrupt::Interrupt;

/// Number of bytes that the register takes.
pub const SIZE: u64 = 1;
/// Event: the power button was pressed.
pub const POWER_BUTTON: u8 = 1 << 0;

/// The register. Reading clears it.
///
/// A snapshot does not keep it: what the guest has not read by then is lost.
pub struct AcpiEvents {
    pending: AtomicU8,
    interrupt: Arc<dyn Interrupt>,
}

impl AcpiEvents {
    /// No events yet.
    pub fn new(interrupt: Arc<dyn Interrupt>) -> Self {
        Self { pending: AtomicU8::new(0), interrupt }
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// What the host said when the interrupt could not be raised.
    pub fn press_power_button(&self) -> io::Result<()> {
        // The event comes before the interrupt, or the guest would find none.
        self.pending.fetch_or(POWER_BUTTON, Ordering::SeqCst);
        self.interrupt.trigger()
    }
}

impl BusDevice for AcpiEvents {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (register, byte) in byte_registers(offset).zip(data) {
            *byte = if register == 0 { self.pending.swap(0, Ordering::SeqCst) } else { 0 };
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> BusAction {
        BusAction::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::FakeInterrupt;

    #[test]
    fn an_event_interrupts_and_is_read_once() {
        let interrupt = Arc::new(FakeInterrupt::default());
        let events = AcpiEvents::new(interrupt.clone());
        let read = || {
            let mut data = [0xff];
            events.read(0, &mut data);
            data[0]
        };
        assert_eq!(read(), 0);
        events.press_power_button().unwrap();
        events.press_power_button().unwrap();
        assert_eq!(interrupt.count(), 2);
        assert_eq!((read(), read()), (POWER_BUTTON, 0));
        assert_eq!(events.write(0, &[0xff]), BusAction::None);
        assert_eq!(read(), 0);
    }
}
