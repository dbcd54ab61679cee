//! Uncompressed kernels: any bytes behind the ELF magic number.

#![no_main]

mod kernel;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    kernel::load(&[b"\x7fELF", data].concat());
});
