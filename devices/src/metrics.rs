//! What devices count. Every counter only grows, is updated without a lock, and serializes as a number. A gauge is a value
//! that is set.

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

/// A value that is set, and is no count of anything. It serializes as `{"gauge": N}`, which tells it from a counter.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The key that a serialized gauge has its value by.
    pub const KEY: &str = "gauge";

    /// It is `value` from now on.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Serialize for Gauge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_variant("Metric", 0, Self::KEY, &self.0.load(Ordering::Relaxed))
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
    /// Times that requests had to wait for the rate limiter.
    pub limited: Counter,
    /// Times that the backing file was swapped.
    pub swaps: Counter,
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

/// What the metadata service counts, over all interfaces. As in a network device of its own, "rx" is from the guest.
#[derive(Debug, Default, Serialize)]
pub struct MmdsMetrics {
    /// Frames of the guest that were for it.
    pub rx_accepted: Counter,
    /// Those of them that were dropped: malformed, from an impossible address, or too many at once.
    pub rx_dropped: Counter,
    /// Frames that were given to the guest.
    pub tx_frames: Counter,
    /// Bytes of them.
    pub tx_bytes: Counter,
    /// Frames that no buffers of the driver are long enough for.
    pub tx_dropped: Counter,
    /// Connections that the guest opened.
    pub connections_created: Counter,
    /// Connections that ended.
    pub connections_destroyed: Counter,
    /// Connections that ended because they took too long, or too many were open.
    pub connections_aborted: Counter,
    /// Requests that were answered with what they asked for.
    pub requests: Counter,
    /// Requests that were refused.
    pub refused_requests: Counter,
    /// GET requests without a token.
    pub rx_no_token: Counter,
    /// GET requests with a token that is wrong or has expired.
    pub rx_invalid_token: Counter,
    /// Tokens that were given out.
    pub tokens: Counter,
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
    /// Times that requests had to wait for the rate limiter.
    pub limited: Counter,
}

/// What a balloon counts. A page is 4 KiB.
#[derive(Debug, Default, Serialize)]
pub struct BalloonMetrics {
    /// Requests that put pages into the balloon.
    pub inflations: Counter,
    /// Pages that they named.
    pub inflated_pages: Counter,
    /// Requests that took pages out of it.
    pub deflations: Counter,
    /// Pages that they named.
    pub deflated_pages: Counter,
    /// Reports of free pages.
    pub reports: Counter,
    /// Bytes of reported pages that the host was given.
    pub reported_bytes: Counter,
    /// Bytes that the host was given in all; a page counts each time.
    pub discarded_bytes: Counter,
    /// Ranges of pages that the host did not take.
    pub discard_failures: Counter,
    /// Pages that were named and ignored: outside of memory, named twice, or too many at once.
    pub ignored_pages: Counter,
    /// Statistics that the guest sent.
    pub statistics: Counter,
}

/// What a virtio console counts.
#[derive(Debug, Default, Serialize)]
pub struct ConsoleMetrics {
    /// Bytes that the guest wrote and the output took.
    pub output_bytes: Counter,
    /// Bytes that the guest wrote and the output did not take.
    pub lost_bytes: Counter,
    /// Times that the guest had to wait, because the output was full.
    pub output_full: Counter,
    /// Bytes that the guest was given.
    pub input_bytes: Counter,
    /// Buffers of the driver that are not in guest memory.
    pub invalid_buffers: Counter,
}

/// What a network device counts whose frames the host's kernel moves.
#[derive(Debug, Default, Serialize)]
pub struct VhostNetMetrics {
    /// Times that the kernel asked for an interrupt.
    pub interrupts: Counter,
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

/// What a socket device counts. As in its queues, "rx" is to the guest and "tx" from it.
#[derive(Debug, Default, Serialize)]
pub struct VsockMetrics {
    /// Connections made, or asked for by a host program.
    pub connections: Counter,
    /// Requests of the guest that no host program took.
    pub refused_requests: Counter,
    /// Host programs sent away before they were connected: they said nonsense or nothing, or there were too many.
    pub rejected_clients: Counter,
    /// Packets to the guest.
    pub rx_packets: Counter,
    /// Bytes of data in them.
    pub rx_bytes: Counter,
    /// Packets from the guest.
    pub tx_packets: Counter,
    /// Bytes of data in them.
    pub tx_bytes: Counter,
    /// RST packets to the guest.
    pub resets_sent: Counter,
    /// RST packets from the guest.
    pub resets_received: Counter,
    /// Packets to the guest that only say how much it may send.
    pub credit_updates_sent: Counter,
    /// Packets of the guest, or buffers for packets to it, that were malformed or out of place.
    pub invalid_packets: Counter,
    /// Packets by which the guest sent more than it had credit for, or took more than it was sent.
    pub credit_violations: Counter,
    /// Things that the host refused: descriptors or memory for a connection.
    pub host_errors: Counter,
}

/// What a keyboard controller counts.
#[derive(Debug, Default, Serialize)]
pub struct I8042Metrics {
    /// Times that Ctrl-Alt-Del was pressed.
    pub ctrl_alt_dels: Counter,
    /// Times that it could not be: no driver listens, or the guest does not read its keyboard.
    pub refused_keys: Counter,
    /// Resets that the guest asked for.
    pub resets: Counter,
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
        assert_eq!(json, r#"{"requests":1,"bytes":4096,"errors":0,"limited":0}"#);
    }
}
