//! Reading the files that a guest is booted from.

use std::io::Cursor;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{Bytes, GuestAddress, ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::boot::image::WholeReads;
use crate::memory::HugePages;

/// A file system that gives no more than 1000 bytes at a time, as 9p and FUSE may.
struct Sparing(Cursor<Vec<u8>>);

impl ReadVolatile for Sparing {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let len = buffer.len().min(1000);
        self.0.read_volatile(&mut buffer.subslice(0, len)?)
    }
}

#[test]
fn a_file_that_comes_in_pieces_is_read_whole() {
    let bytes: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    let memory = crate::memory::create(4, HugePages::None, false).unwrap();
    let mut file = WholeReads(Sparing(Cursor::new(bytes.clone())));
    memory.read_exact_volatile_from(GuestAddress(4096), &mut file, bytes.len()).unwrap();
    let mut read = vec![0; bytes.len()];
    memory.read_slice(&mut read, GuestAddress(4096)).unwrap();
    assert_eq!(read, bytes);
}
