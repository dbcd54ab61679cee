//! The `state` file of a snapshot: any bytes, as they are or as the body behind a header whose checksum is right.
//!
//! Holds: no panic and no more memory than the file is worth; what was read is read again from what is written of it; its
//! pages lie in its memory; a section is read as something else, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::snapshot::{Pages, StateV1, seal};

fuzz_target!(|input: (bool, u16, &[u8])| {
    let (sealed, version, bytes) = input;
    let file = if sealed { seal::seal(bytes).0 } else { bytes.to_vec() };
    let other = seal::seal_as(version, 62, bytes).0;
    assert_eq!(StateV1::decode(&other).is_ok(), sealed_is_ok(version, bytes));
    let Ok((state, config, _)) = StateV1::decode(&file) else { return };

    let (written, seal) = state.encode().unwrap();
    assert_eq!(StateV1::decode(&written).unwrap(), (state.clone(), config, seal));
    let all = Pages::all(state.memory.len());
    assert!(state.memory.pages().without(&all).is_empty());
    for section in &state.sections {
        let _ = state.section::<Vec<(u8, String)>>(&section.name, section.version);
        let _ = state.section::<StateV1>(&section.name, section.version);
    }
});

/// Whether `bytes` are a body, and `version` is the one that is read.
fn sealed_is_ok(version: u16, bytes: &[u8]) -> bool {
    version == seal::FORMAT_VERSION && StateV1::decode(&seal::seal(bytes).0).is_ok()
}
