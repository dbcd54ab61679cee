//! What the API server counts.

use serde::Serialize;
use vmm::metrics::Counter;

/// Counters of one server.
#[derive(Debug, Default, Serialize)]
pub struct ApiMetrics {
    /// Connections that were accepted.
    pub connections: Counter,
    /// Requests that were read to their end or refused.
    pub requests: Counter,
    /// Requests that were refused, by the server or by the VM.
    pub refused_requests: Counter,
    /// Connections that ended in an error: no HTTP, too slow, or gone before their answer.
    pub broken_connections: Counter,
}
