//! What is sent to the guest: one turn for each connection that has something, over and over.

use super::Muxer;
use crate::virtio::device::DeviceError;
use crate::virtio::vsock::connection::Sent;
use crate::virtio::vsock::rx_queue::RxQueue;

/// Packets that one call sends before other devices get their turn. A buffer that is of no use counts like one.
const MAX_PACKETS_PER_CALL: u64 = 256;

impl Muxer {
    /// Sends the guest what it is owed and has buffers for.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(in super::super) fn send_to_guest(&mut self, rx: &mut RxQueue) -> Result<(), DeviceError> {
        let mut packets = 0;
        while !self.resets.is_empty() || self.table.has_ready() {
            if packets + rx.rejected() >= MAX_PACKETS_PER_CALL {
                rx.continue_later();
                break;
            }
            if !rx.fill(1)? {
                break;
            }
            // A turn that sends nothing counts, too.
            packets += self.send_next(rx)?.max(1);
        }
        self.metrics.invalid_packets.add(rx.take_rejected());
        rx.notify_driver()
    }

    fn send_next(&mut self, rx: &mut RxQueue) -> Result<u64, DeviceError> {
        let sent = if let Some(reset) = self.resets.pop_front() {
            let packets = rx.send(reset, 0)?;
            Sent { packets, reset: true, ..Sent::default() }
        } else {
            let Some(index) = self.table.next_ready() else { return Ok(0) };
            let Some(connection) = self.table.get_mut(index) else { return Ok(0) };
            let sent = connection.send(rx)?;
            self.settle(index);
            sent
        };
        let Sent { packets, bytes, reset, credit_update } = sent;
        self.metrics.rx_packets.add(packets);
        self.metrics.rx_bytes.add(bytes);
        self.metrics.resets_sent.add(u64::from(reset));
        self.metrics.credit_updates_sent.add(u64::from(credit_update));
        Ok(packets)
    }

    /// Whether answers that belong to no connection have room again.
    pub(in super::super) fn can_take_packets(&self) -> bool {
        self.resets.len() < super::MAX_RESETS
    }
}
