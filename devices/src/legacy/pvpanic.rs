//! The panic notifier that Linux, Windows and the BSDs have a driver for (QEMU, docs/specs/pvpanic).
//!
//! One byte: reading it says which events the device knows, writing it tells of one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use log::warn;
use serde::Serialize;

use crate::bus::{BusAction, BusDevice};
use crate::metrics::Counter;

/// Number of bytes that the register takes.
pub const SIZE: u64 = 1;
/// The guest's kernel has panicked, and ends or hangs.
const PANICKED: u8 = 1 << 0;
/// It has panicked, and a crash kernel takes over.
const CRASH_LOADED: u8 = 1 << 1;

/// Panics that are logged in the life of this process; a guest can make up as many as it likes, and restart in between.
const MAX_WARNINGS: u32 = 8;
static WARNINGS: AtomicU32 = AtomicU32::new(0);

/// Called when the guest tells of a panic, in its vCPU's thread.
pub type PanicListener = Box<dyn Fn() + Send + Sync>;

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
        if data.first().is_some_and(|events| events & (PANICKED | CRASH_LOADED) != 0) {
            self.metrics.panics.increment();
            if WARNINGS.load(Ordering::Relaxed) < MAX_WARNINGS {
                WARNINGS.fetch_add(1, Ordering::Relaxed);
                warn!("the guest's kernel says that it has panicked");
            }
            if let Some(listener) = self.listener.get() {
                listener();
            }
        }
        // What comes of it is for the guest to decide: it resets, or boots its crash kernel.
        BusAction::None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_panic_is_told_and_nothing_else_is() {
        let told = Arc::new(AtomicUsize::new(0));
        let device = Pvpanic::default();
        device.listen(Box::new({
            let told = told.clone();
            move || {
                told.fetch_add(1, Ordering::SeqCst);
            }
        }));
        let mut known = [0xff; 2];
        device.read(0, &mut known);
        assert_eq!(known, [3, 0]);
        for value in 0..=u8::MAX {
            assert_eq!(device.write(0, &[value]), BusAction::None);
        }
        assert_eq!(device.write(0, &[]), BusAction::None);
        assert_eq!(told.load(Ordering::SeqCst), 192, "three of each four values have one of the two bits");
        assert_eq!(device.metrics().panics.get(), 192);
    }
}
