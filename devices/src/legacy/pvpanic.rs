//! The panic notifier (QEMU, docs/specs/pvpanic), in its ISA form: a port, which ACPI describes as `QEMU0001`.
//!
//! One byte: reading it says which events the device knows, writing it tells of one. Linux has a driver for it: `pvpanic`
//! from 3.11 on (`CONFIG_PVPANIC`), `pvpanic-mmio` from 5.13 on (`CONFIG_PVPANIC_MMIO`), which takes ports too.

use std::sync::OnceLock;

use serde::Serialize;

use crate::bus::{BusAction, BusDevice};
use crate::metrics::Counter;

/// Number of bytes that the register takes.
pub const SIZE: u64 = 1;
/// The guest's kernel has panicked, and ends or hangs.
const PANICKED: u8 = 1 << 0;
/// It has panicked, and a crash kernel takes over.
const CRASH_LOADED: u8 = 1 << 1;

/// What the guest tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panic {
    /// Its kernel has panicked, and ends or hangs.
    Panicked,
    /// Its kernel has panicked, and a crash kernel takes over.
    CrashLoaded,
}

/// Called when the guest tells of a panic, in its vCPU's thread.
pub type PanicListener = Box<dyn Fn(Panic) + Send + Sync>;

/// What the device counts.
#[derive(Debug, Default, Serialize)]
pub struct PvpanicMetrics {
    /// Panics that the guest told of.
    pub panics: Counter,
}

/// The device.
#[derive(Default)]
pub struct Pvpanic {
    listener: OnceLock<PanicListener>,
    metrics: std::sync::Arc<PvpanicMetrics>,
}

impl Pvpanic {
    /// Has `listener` called when the guest tells of a panic. Only the first one is.
    pub fn listen(&self, listener: PanicListener) {
        let _ = self.listener.set(listener);
    }

    /// What it counts.
    pub fn metrics(&self) -> std::sync::Arc<PvpanicMetrics> {
        self.metrics.clone()
    }
}

impl BusDevice for Pvpanic {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) -> BusAction {
        let panic = match data.first() {
            Some(events) if events & PANICKED != 0 => Panic::Panicked,
            Some(events) if events & CRASH_LOADED != 0 => Panic::CrashLoaded,
            _ => return BusAction::None,
        };
        self.metrics.panics.increment();
        if let Some(listener) = self.listener.get() {
            listener(panic);
        }
        // What comes of it is for the guest to decide: it resets, or boots its crash kernel.
        BusAction::None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_panic_is_told_and_nothing_else_is() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let device = Pvpanic::default();
        device.listen(Box::new({
            let told = told.clone();
            move |panic| told.lock().unwrap().push(panic)
        }));
        let mut known = [0xff; 2];
        device.read(0, &mut known);
        assert_eq!(known, [3, 0]);
        for value in 0..=u8::MAX {
            assert_eq!(device.write(0, &[value]), BusAction::None);
        }
        assert_eq!(device.write(0, &[]), BusAction::None);
        let told = told.lock().unwrap();
        assert_eq!(
            told[..3],
            [Panic::Panicked, Panic::CrashLoaded, Panic::Panicked],
            "written were 1, 2 and 3"
        );
        assert_eq!(told.len(), 192, "three of each four values have one of the two bits");
        assert_eq!(device.metrics().panics.get(), 192);
    }
}
