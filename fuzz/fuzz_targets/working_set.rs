//! The file `working-set` of a snapshot, which anyone may have written, and what is done about it before a guest goes on.
//!
//! Holds: what is read are whole pages of the guest's memory, and to have them at hand takes no more than all of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::memory::{self, HugePages};
use vmm::snapshot::{PAGE_SIZE, working_set};

const MIB: u64 = 4;

fuzz_target!(|bytes: &[u8]| {
    let Ok(used) = working_set::parse(bytes, MIB << 20) else { return };
    for used in &used {
        let range = &used.range;
        assert!(range.start <= range.end && range.end <= MIB << 20);
        assert!(range.start % PAGE_SIZE == 0 && range.end % PAGE_SIZE == 0);
    }
    let memory = memory::create(MIB, HugePages::None, false).unwrap();
    memory::prefetch(&memory, &used);
    for found in working_set::of(&memory).unwrap() {
        assert!(found.written && found.range.end <= MIB << 20);
    }
});
