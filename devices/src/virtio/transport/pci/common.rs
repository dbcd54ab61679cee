//! The common configuration structure (virtio 1.3, 4.1.4.3).
//!
//! Fields are read and written at their own width, those of 64 bits by halves (4.1.3.1). Drivers that access 8 bytes at once
//! get both halves. Any other access reads as zeros and writes nothing.

use super::signal::PciSignal;
use crate::virtio::transport::core::{Half, QueueArea, TransportCore};

/// Bytes of the structure. What is behind `queue_device` needs features that are not offered, and reads as zeros.
pub(super) const SIZE: u32 = 0x40;
/// The same of [`super::capabilities::CapabilityList::First`].
pub(super) const FIRST_SIZE: u32 = 0x38;

// Offsets of the fields.
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

/// The part of an address register that a 32-bit access at `offset` means.
fn address(offset: u64) -> Option<(QueueArea, Half)> {
    let area = match offset & !7 {
        QUEUE_DESC => QueueArea::Descriptor,
        QUEUE_DRIVER => QueueArea::Driver,
        QUEUE_DEVICE => QueueArea::Device,
        _ => return None,
    };
    match offset & 7 {
        0 => Some((area, Half::Low)),
        4 => Some((area, Half::High)),
        _ => None,
    }
}

/// Fills `data`, which is all zeros, from `offset`.
pub(super) fn read(core: &TransportCore, signal: &PciSignal, offset: u64, data: &mut [u8]) {
    match data.len() {
        1 => {
            let value = match offset {
                DEVICE_STATUS => core.status(),
                CONFIG_GENERATION => core.config_generation(),
                _ => 0,
            };
            data.copy_from_slice(&[value as u8]);
        }
        2 => {
            let queue = core.queue_select();
            let value = match offset {
                CONFIG_MSIX_VECTOR => signal.config_vector(),
                NUM_QUEUES => core.queue_count() as u16,
                QUEUE_SELECT | QUEUE_NOTIFY_OFF => queue as u16,
                QUEUE_SIZE => core.queue_size() as u16,
                QUEUE_MSIX_VECTOR => signal.queue_vector(queue),
                QUEUE_ENABLE => u16::from(core.queue_ready()),
                _ => 0,
            };
            data.copy_from_slice(&value.to_le_bytes());
        }
        4 => {
            let value = match (offset, address(offset)) {
                (DEVICE_FEATURE_SELECT, _) => core.device_features_select(),
                (DEVICE_FEATURE, _) => core.device_features(),
                (DRIVER_FEATURE_SELECT, _) => core.driver_features_select(),
                (DRIVER_FEATURE, _) => core.driver_features(),
                (_, Some((area, half))) => half.of(core.queue_address(area)),
                _ => 0,
            };
            data.copy_from_slice(&value.to_le_bytes());
        }
        8 => {
            let (low, high) = data.split_at_mut(4);
            read(core, signal, offset, low);
            read(core, signal, offset + 4, high);
        }
        _ => {}
    }
}

/// Takes what the driver writes at `offset`.
pub(super) fn write(core: &TransportCore, signal: &PciSignal, offset: u64, data: &[u8]) {
    match *data {
        [value] if offset == DEVICE_STATUS => core.set_status(value.into()),
        [low, high] => {
            let value = u16::from_le_bytes([low, high]);
            match offset {
                CONFIG_MSIX_VECTOR => signal.set_config_vector(value),
                QUEUE_SELECT => core.select_queue(value.into()),
                QUEUE_SIZE => core.set_queue_size(value.into()),
                QUEUE_MSIX_VECTOR => signal.set_queue_vector(core.queue_select(), value),
                // A driver must not write 0 (4.1.4.3.2): a queue is disabled by a reset.
                QUEUE_ENABLE if value == 1 => core.set_queue_ready(true),
                _ => {}
            }
        }
        [a, b, c, d] => {
            let value = u32::from_le_bytes([a, b, c, d]);
            match (offset, address(offset)) {
                (DEVICE_FEATURE_SELECT, _) => core.select_device_features(value),
                (DRIVER_FEATURE_SELECT, _) => core.select_driver_features(value),
                (DRIVER_FEATURE, _) => core.set_driver_features(value),
                (_, Some((area, half))) => core.set_queue_address(area, half, value),
                _ => {}
            }
        }
        [a, b, c, d, ref high @ ..] if high.len() == 4 => {
            write(core, signal, offset, &[a, b, c, d]);
            write(core, signal, offset + 4, high);
        }
        _ => {}
    }
}
