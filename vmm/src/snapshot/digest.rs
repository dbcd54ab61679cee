//! SHA-256 of the files of a snapshot.
//!
//! Of `memory` it is that of all pages that are not all zeroes, in ascending order, each as its offset (64 bits,
//! little-endian) and its 4096 bytes. So it costs by what is in use and not by the file's length, and it does not matter
//! whether zeroes are a hole. `sha256sum` of the same file gives another: it hashes the zeroes too.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

use super::pages::{PAGE_SIZE, Pages};
use crate::memory::data_extents;

/// Bytes that are read at once, whole pages.
const AT_ONCE: u64 = 256 << 10;

/// A SHA-256.
pub type Digest = [u8; 32];

/// What a memory file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The digest of its pages.
    pub sha256: Digest,
    /// Bytes of the pages that are not all zeroes.
    pub in_use: u64,
}

/// The digest of memory, page by page.
#[derive(Default)]
pub(super) struct Pagewise {
    hasher: Sha256,
    in_use: u64,
}

impl Pagewise {
    /// Adds the pages in `bytes`, the first of which is at `offset`: behind all that were added.
    pub(super) fn add(&mut self, offset: u64, bytes: &[u8]) {
        for (page, offset) in bytes.chunks(PAGE_SIZE as usize).zip((offset..).step_by(PAGE_SIZE as usize)) {
            if is_zero(page) {
                continue;
            }
            self.hasher.update(offset.to_le_bytes());
            self.hasher.update(page);
            self.in_use += PAGE_SIZE;
        }
    }

    pub(super) fn finish(self) -> Contents {
        Contents { sha256: self.hasher.finalize().into(), in_use: self.in_use }
    }
}

/// Whether there is nothing but zeroes: the bytes are compared with themselves, one further.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    match (bytes.split_first(), bytes.split_last()) {
        (Some((0, behind)), Some((_, before))) => behind == before,
        (first, _) => first.is_none(),
    }
}

/// The digest of the memory file `file`, of `len` bytes.
///
/// # Errors
/// What the host said.
pub fn of_memory(file: &File, len: u64) -> io::Result<Contents> {
    let mut pages = Pagewise::default();
    let extents = Pages::of(data_extents(file, len));
    for extent in extents.ranges() {
        for part in parts(&(extent.start..extent.end.min(len))) {
            pages.add(part.start, &read(file, &part)?);
        }
    }
    Ok(pages.finish())
}

/// `range` in parts that are read at once.
pub(super) fn parts(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    (range.start..end)
        .step_by(AT_ONCE as usize)
        .map(move |start| start..end.min(start.saturating_add(AT_ONCE)))
}

/// The bytes at `part` of `file`.
pub(super) fn read(file: &File, part: &Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; part.end.saturating_sub(part.start) as usize];
    file.read_exact_at(&mut bytes, part.start)?;
    Ok(bytes)
}

/// The digest of `bytes`.
pub fn of_bytes(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
