//! What the host's KVM is and offers. Only this crate talks to it.

pub mod host;
pub mod probe;
