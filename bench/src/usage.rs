//! A command line that is wrong in a way that its parser cannot see.

use std::error::Error;
use std::fmt;

/// The exit code for it.
pub(crate) const EXIT_CODE: u8 = 2;

/// What is wrong, and the mend.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}
