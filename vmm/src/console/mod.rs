//! The other end of the guest's consoles, serial and virtio: a terminal, a pipe, a file, or nothing.

mod escape;
mod input;
mod output;
mod queued;
mod tape;
mod terminal;

use std::path::PathBuf;

pub use escape::{Command, Escape, Keys};
pub use input::{Input, Port, Request};
pub use output::{Output, OutputError};
pub use queued::Queued;
pub use tape::{Follower, Piece, Tape};
pub use terminal::{Terminal, restore as restore_terminal};

/// Where the console goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConsoleConfig {
    /// Standard input and output.
    #[default]
    Stdio,
    /// Nowhere; what the guest writes is dropped.
    None,
    /// Output to a file, made or emptied; no input.
    File(PathBuf),
}
