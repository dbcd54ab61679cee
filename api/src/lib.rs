//! REST on a unix socket: wire types in, vmm requests out.
//!
//! One VM, one socket. The paths, bodies and statuses are those that Firecracker documents; what rvmm adds lies under
//! `/rvmm/`. [`routes`] turns an HTTP request into a request to the VM without any I/O, a file of `endpoints` for each
//! resource; [`Server`] has the socket, a thread and the limits on what clients may take of it.
//!
//! A write that succeeds is answered with 204, what is refused with 400 and `{"fault_message": "…"}`.

pub mod client;
mod console;
mod endpoints;
mod errors;
mod metrics;
mod patience;
mod reply;
pub mod routes;
mod server;
mod stream;

pub use devices::unix_socket::SocketError;
pub use errors::Fault;
pub use metrics::{ApiMetrics, StartTimes};
pub use reply::Reply;
pub use server::{Limits, Server, ServerError, Socket};

/// Removes the socket at `path` if it is one that nobody listens on; anything else is left alone.
pub fn clear_stale_socket(path: &std::path::Path) {
    // Whoever listens there first replaces what is stale, and takes it along at its end.
    if path.exists() {
        drop(devices::unix_socket::ListeningSocket::bind(path, devices::unix_socket::Descriptors::Refuse));
    }
}
