//! What a VM says of its memory to the process that serves it: any bytes, in pieces.
//!
//! Holds: no panic; a message that is taken names each byte of the memory file once, at addresses that do not overlap; it is
//! taken at its last byte and not before; and a reason for refusing it is one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::memory_server::harness::parse_handshake;

const LEN: u64 = 8 << 20;

fuzz_target!(|message: &[u8]| {
    match parse_handshake(message, LEN) {
        Ok(Some(mut parts)) => {
            for (addresses, offsets) in &parts {
                assert!(addresses.start < addresses.end);
                assert_eq!(addresses.end - addresses.start, offsets.end - offsets.start);
            }
            parts.sort_unstable_by_key(|(addresses, _)| addresses.start);
            assert!(parts.is_sorted_by(|(one, _), (other, _)| one.end <= other.start));
            parts.sort_unstable_by_key(|(_, offsets)| offsets.start);
            assert!(parts.is_sorted_by(|(_, one), (_, other)| one.end == other.start));
            assert_eq!(parts.first().map(|(_, offsets)| offsets.start), Some(0));
            assert_eq!(parts.last().map(|(_, offsets)| offsets.end), Some(LEN));

            let message = message.trim_ascii_end();
            for cut in 0..message.len() {
                assert_eq!(parse_handshake(&message[..cut], LEN), Ok(None), "{cut}");
            }
        }
        Ok(None) => {}
        Err(error) => assert!(!error.is_empty() && !error.contains('\n'), "{error:?}"),
    }
});
