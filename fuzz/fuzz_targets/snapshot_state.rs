//! The `state` file of a snapshot: any bytes, as they are or as the body behind a header whose checksum is right.
//!
//! Holds: no panic and no more memory than the file is worth; what was read is read again from what is written of it; its
//! pages lie in its memory; a section is read as something else, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::snapshot::{Pages, StateV2, seal};

fuzz_target!(|input: (bool, u16, &[u8])| {
    let (sealed, version, bytes) = input;
    let file = if sealed { seal::seal(bytes).0 } else { bytes.to_vec() };
    let other = seal::seal_as(version, 62, bytes).0;
    assert!(StateV2::decode(&other).is_err() || (1..=seal::FORMAT_VERSION).contains(&version));
    let Ok((state, config, _)) = StateV2::decode(&file) else { return };

    let (written, seal) = state.encode().unwrap();
    assert_eq!(StateV2::decode(&written).unwrap(), (state.clone(), config, seal));
    let all = Pages::all(state.memory.len());
    assert!(state.memory.pages().without(&all).is_empty());
    for section in &state.sections {
        let _ = state.section::<Vec<(u8, String)>>(&section.name, section.version);
        let _ = state.section::<StateV2>(&section.name, section.version);
    }
});
