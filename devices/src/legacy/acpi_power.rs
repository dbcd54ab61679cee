//! Power-off and reset on hardware-reduced ACPI (ACPI 6.5, 4.8.3.7 and 4.8.3.6).
//!
//! Three byte registers, which the FADT names: sleep control, sleep status, reset.

use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

use crate::bus::{BusAction, BusDevice, byte_registers};
use crate::state::StateError;

/// Offset of the sleep control register (FADT: SLEEP_CONTROL_REG).
pub const SLEEP_CONTROL_OFFSET: u64 = 0;
/// Offset of the sleep status register (FADT: SLEEP_STATUS_REG).
pub const SLEEP_STATUS_OFFSET: u64 = 1;
/// Offset of the reset register (FADT: RESET_REG).
pub const RESET_OFFSET: u64 = 2;
/// Number of bytes that the registers take.
pub const SIZE: u64 = 3;

/// What the DSDT's `\_S5` package must hold: the sleep type that powers the VM off.
pub const SLEEP_TYPE_S5: u8 = 5;
/// What the FADT's RESET_VALUE must hold.
pub const RESET_VALUE: u8 = 1;

/// Sleep control: SLP_TYPx, bits 2 to 4.
const SLP_TYP_SHIFT: u8 = 2;
const SLP_TYP_MASK: u8 = 0b111 << SLP_TYP_SHIFT;
/// Sleep control: SLP_EN, write-only.
const SLP_EN: u8 = 1 << 5;

/// The three registers. Only S5 is a sleep state here, so nothing ever wakes and WAK_STS stays clear.
#[derive(Debug, Default)]
pub struct AcpiPower {
    sleep_type: AtomicU8,
}

/// What a snapshot keeps of the registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiPowerStateV1 {
    /// The sleep type that the guest wrote last, where the sleep control register has it: bits 2 to 4.
    pub sleep_type: u8,
}

impl AcpiPower {
    /// The state of the registers.
    pub fn save(&self) -> AcpiPowerStateV1 {
        AcpiPowerStateV1 { sleep_type: self.sleep_type.load(Ordering::Relaxed) }
    }

    /// Takes the state of registers that were saved.
    ///
    /// # Errors
    /// When it has bits that the register does not keep.
    pub fn restore(&self, state: &AcpiPowerStateV1) -> Result<(), StateError> {
        let AcpiPowerStateV1 { sleep_type } = *state;
        if sleep_type & !SLP_TYP_MASK != 0 {
            return Err(StateError::new(format!(
                "sleep control holds {sleep_type:#x}: it has the bits {SLP_TYP_MASK:#x}"
            )));
        }
        self.sleep_type.store(sleep_type, Ordering::Relaxed);
        Ok(())
    }

    /// Registers as they are at power-on.
    pub fn new() -> Self {
        Self::default()
    }

    fn write_register(&self, offset: u64, value: u8) -> BusAction {
        match offset {
            SLEEP_CONTROL_OFFSET => {
                self.sleep_type.store(value & SLP_TYP_MASK, Ordering::Relaxed);
                let s5 = value & SLP_TYP_MASK == SLEEP_TYPE_S5 << SLP_TYP_SHIFT;
                if value & SLP_EN != 0 && s5 { BusAction::Shutdown } else { BusAction::None }
            }
            RESET_OFFSET if value == RESET_VALUE => BusAction::Reset,
            // Sleep status has one bit, WAK_STS, which a write of one clears: it is clear already.
            _ => BusAction::None,
        }
    }
}

impl BusDevice for AcpiPower {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (register, byte) in byte_registers(offset).zip(data) {
            *byte = match register {
                SLEEP_CONTROL_OFFSET => self.sleep_type.load(Ordering::Relaxed),
                _ => 0,
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
mod tests {
    use super::*;

    #[test]
    fn only_an_enabled_s5_powers_off() {
        for value in 0..=u8::MAX {
            let enabled = value & 0x20 != 0;
            let s5 = (value >> 2) & 7 == SLEEP_TYPE_S5;
            let expected = if enabled && s5 { BusAction::Shutdown } else { BusAction::None };
            assert_eq!(AcpiPower::new().write(SLEEP_CONTROL_OFFSET, &[value]), expected, "{value:#x}");
        }
    }

    #[test]
    fn only_the_reset_value_resets() {
        let power = AcpiPower::new();
        assert_eq!(power.write(RESET_OFFSET, &[RESET_VALUE]), BusAction::Reset);
        assert_eq!(power.write(RESET_OFFSET, &[0]), BusAction::None);
        assert_eq!(power.write(RESET_OFFSET, &[0xff]), BusAction::None);
    }

    #[test]
    fn sleep_enable_reads_as_zero_and_nothing_has_woken() {
        let power = AcpiPower::new();
        let _ = power.write(SLEEP_CONTROL_OFFSET, &[0xff]);
        let _ = power.write(SLEEP_STATUS_OFFSET, &[0xff]);
        let mut data = [0xaa; 3];
        power.read(SLEEP_CONTROL_OFFSET, &mut data);
        assert_eq!(data, [0x1c, 0, 0]);
    }

    #[test]
    fn a_restored_register_reads_as_the_saved_one_and_takes_no_other_bits() {
        let saved = AcpiPower::new();
        let _ = saved.write(SLEEP_CONTROL_OFFSET, &[0x0c]);
        let restored = AcpiPower::new();
        restored.restore(&saved.save()).unwrap();
        let mut data = [0];
        restored.read(SLEEP_CONTROL_OFFSET, &mut data);
        assert_eq!(data, [0x0c]);
        for sleep_type in (0..=u8::MAX).filter(|value| value & !0x1c != 0) {
            assert!(restored.restore(&AcpiPowerStateV1 { sleep_type }).is_err(), "{sleep_type:#x}");
        }
        assert_eq!(restored.save(), saved.save());
    }

    #[test]
    fn wide_and_odd_accesses_are_harmless() {
        let power = AcpiPower::new();
        for offset in [0, 1, 2, 3, 100, u64::MAX] {
            for width in 1..=8 {
                power.read(offset, &mut vec![0; width]);
                let _ = power.write(offset, &vec![0; width]);
            }
        }
    }
}
