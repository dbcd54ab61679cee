//! REST on a unix socket: wire types in, vmm requests out.
