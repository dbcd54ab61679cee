//! Kernels that unpack themselves: any bytes around the boot sector's magic numbers.

#![no_main]

mod kernel;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut image = data.to_vec();
    for (offset, magic) in [(0x1fe, &b"\x55\xaa"[..]), (0x202, b"HdrS")] {
        if let Some(bytes) = image.get_mut(offset..offset + magic.len()) {
            bytes.copy_from_slice(magic);
        }
    }
    kernel::load(&image);
});
