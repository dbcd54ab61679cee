//! The file `working-set` of a snapshot, which anyone may have written, and what is done about it before a guest goes on.
//!
//! Holds: what is read are whole pages of the guest's memory; to have them at hand takes no more than these, and changes no byte.
#![no_main]

use std::fs::File;
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes as _, GuestAddress};
use vmm::memory::{self, HugePages, Source};
use vmm::snapshot::{PAGE_SIZE, Pages, working_set};

const MIB: u64 = 4;
/// The memory file has this byte there, and zeroes elsewhere.
const DATA: (u64, u8) = (1 << 20, 0xa5);

static MEMORY: LazyLock<Arc<File>> = LazyLock::new(|| {
    // SAFETY: a new descriptor, which nobody else has.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"memory".as_ptr(), 0)) };
    file.set_len(MIB << 20).unwrap();
    file.write_all_at(&[DATA.1; 1 << 20], DATA.0).unwrap();
    Arc::new(file)
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(used) = working_set::parse(bytes, MIB << 20) else { return };
    for used in &used {
        let range = &used.range;
        assert!(range.start <= range.end && range.end <= MIB << 20);
        assert!(range.start % PAGE_SIZE == 0 && range.end % PAGE_SIZE == 0);
    }
    let source = Source { base: MEMORY.clone(), overlays: Vec::new() };
    let memory = memory::restore_used(MIB, &source, HugePages::None, false, &used).unwrap();
    for found in working_set::of(&memory, &Pages::default()).unwrap().iter().filter(|found| found.written) {
        for page in found.range.clone().step_by(PAGE_SIZE as usize) {
            assert!(used.iter().any(|used| used.written && used.range.contains(&page)));
        }
    }
    let byte = |offset| memory.read_obj::<u8>(GuestAddress(offset)).unwrap();
    assert_eq!([byte(0), byte(DATA.0), byte(DATA.0 * 2)], [0, DATA.1, 0]);
});
