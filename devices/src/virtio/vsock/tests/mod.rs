//! A driver that sends and receives packets, and host programs on real sockets.

mod ends;
mod guest;
mod hostile;
mod listener;
mod restore;
mod streams;
