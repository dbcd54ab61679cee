//! What devices count. Every counter only grows, is updated without a lock, and serializes as a number.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};

/// A count of events or bytes since the device was made.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `amount` more.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// How much it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}

/// What a virtio transport counts, whatever its device.
#[derive(Debug, Default, Serialize)]
pub struct TransportMetrics {
    /// Times that the driver set DRIVER_OK and the device started.
    pub activations: Counter,
    /// Times that the driver reset the device.
    pub resets: Counter,
    /// Times that the device went to DEVICE_NEEDS_RESET.
    pub needs_reset: Counter,
    /// Events that the device processed: queue notifications and backend events.
    pub events: Counter,
    /// Interrupts raised for used buffers and for configuration changes.
    pub interrupts: Counter,
    /// Interrupts that the host refused to deliver.
    pub interrupt_failures: Counter,
}

/// What a block device counts.
#[derive(Debug, Default, Serialize)]
pub struct BlockMetrics {
    /// Reads that succeeded.
    pub reads: Counter,
    /// Bytes that they read.
    pub read_bytes: Counter,
    /// Writes that succeeded.
    pub writes: Counter,
    /// Bytes that they wrote.
    pub written_bytes: Counter,
    /// Flushes that succeeded.
    pub flushes: Counter,
    /// Discards and zeroings that succeeded.
    pub discards: Counter,
    /// Requests that the host failed.
    pub host_errors: Counter,
    /// Requests that the driver got wrong: out of bounds, malformed, of an unknown type.
    pub invalid_requests: Counter,
}

/// What a network device counts. Bytes are those of frames, without the header of virtio.
#[derive(Debug, Default, Serialize)]
pub struct NetMetrics {
    /// Frames that the guest was given.
    pub rx_frames: Counter,
    /// Bytes of them.
    pub rx_bytes: Counter,
    /// Frames that were dropped because no buffers of the driver are long enough for them.
    pub rx_dropped: Counter,
    /// Times that the driver had no buffer.
    pub rx_no_buffers: Counter,
    /// Times that the rate limiter made a frame for the guest wait.
    pub rx_limited: Counter,
    /// Frames that the guest sent.
    pub tx_frames: Counter,
    /// Bytes of them.
    pub tx_bytes: Counter,
    /// Frames that were dropped because the link is down.
    pub tx_dropped: Counter,
    /// Buffers that the driver got wrong: no frame, one too long, or outside of memory.
    pub tx_invalid: Counter,
    /// Frames that the host refused.
    pub tx_errors: Counter,
    /// Times that the rate limiter made a frame of the guest wait.
    pub tx_limited: Counter,
    /// Times that the host had no room for a frame of the guest.
    pub tx_stalled: Counter,
}

/// What an entropy device counts.
#[derive(Debug, Default, Serialize)]
pub struct RngMetrics {
    /// Requests that were filled.
    pub requests: Counter,
    /// Random bytes given.
    pub bytes: Counter,
    /// Requests that got nothing: no writable buffer, or the host had no randomness.
    pub errors: Counter,
}

/// What a serial port counts.
#[derive(Debug, Default, Serialize)]
pub struct SerialMetrics {
    /// Bytes that the guest sent.
    pub output_bytes: Counter,
    /// Bytes that the guest sent and the output did not take.
    pub lost_bytes: Counter,
    /// Bytes that the guest was given.
    pub input_bytes: Counter,
    /// Interrupts that the host refused to deliver.
    pub interrupt_failures: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_serialize_as_numbers() {
        let metrics = RngMetrics::default();
        metrics.requests.increment();
        metrics.bytes.add(4096);
        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(json, r#"{"requests":1,"bytes":4096,"errors":0}"#);
    }
}
