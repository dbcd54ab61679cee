//! Files that the user writes for rvmm.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The longest file that is read, in bytes: the largest VM takes a few thousand.
pub const MAX_SIZE: u64 = 1 << 20;

/// The text of a file that is not longer than [`MAX_SIZE`].
///
/// # Errors
/// What the host said, or that the file is longer.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!("longer than {MAX_SIZE} bytes")));
    }
    Ok(text)
}
