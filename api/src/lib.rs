//! REST on a unix socket: wire types in, vmm requests out.
//!
//! One VM, one socket. The paths, bodies and statuses are those that Firecracker documents; what rvmm adds lies under
//! `/rvmm/`. [`routes`] turns an HTTP request into a request to the VM without any I/O, a file of `endpoints` for each
//! resource; [`Server`] has the socket, a thread and the limits on what clients may take of it.
//!
//! A write that succeeds is answered with 204, what is refused with 400 and `{"fault_message": "…"}`.

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
pub use server::{Limits, Server, ServerError};
