//! Brings pages of guest memory in before the guest asks for them.
#![expect(unsafe_code, reason = "madvise(2) has no safe wrapper for a mapping that vm-memory owns")]

use std::io;
use std::thread::{self, JoinHandle};

use devices::GuestMemory;

use super::memory_file::mapped;
use super::pages::Pages;

/// Bytes that one call brings in: the guest's own faults need not wait long for it.
const AT_ONCE: u64 = 2 << 20;
/// Stack of the thread, in bytes.
const STACK: usize = 64 << 10;

/// Brings in `pages`, offsets in the memory file that `memory` is mapped from. They stay shared with others who have
/// mapped it.
///
/// # Errors
/// What the host said, as for a file that cannot be read. The guest can have its pages all the same, if at all.
pub fn prefault(memory: &GuestMemory, pages: &Pages) -> io::Result<()> {
    for (address, range) in mapped(memory, pages) {
        let len = range.end - range.start;
        for start in (0..len).step_by(AT_ONCE as usize) {
            let part = address.wrapping_add(start as usize);
            // SAFETY: the part is cut to the range, which is mapped at this address for as long as there is `memory`.
            unsafe { bring_in(part, AT_ONCE.min(len - start) as usize)? };
        }
    }
    Ok(())
}

/// [`prefault`] in a thread of its own, while the guest runs. Nobody needs to wait for it.
///
/// # Errors
/// When the host has no thread.
pub fn prefault_beside(memory: &GuestMemory, pages: Pages) -> io::Result<JoinHandle<()>> {
    // The regions are counted: the thread keeps them for as long as it needs.
    let memory = memory.clone();
    let work = move || {
        if let Err(error) = prefault(&memory, &pages) {
            log::warn!("cannot bring in memory beforehand: {error}");
        }
    };
    thread::Builder::new().name("prefault".to_owned()).stack_size(STACK).spawn(work)
}

/// Brings in `len` bytes from `address` on.
///
/// # Safety
/// They are mapped.
unsafe fn bring_in(address: *mut u8, len: usize) -> io::Result<()> {
    let mut advice = libc::MADV_POPULATE_READ;
    loop {
        // SAFETY: the range is in a mapping that is there, as the caller says; neither advice changes what is in it.
        if unsafe { libc::madvise(address.cast(), len, advice) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Linux before 5.14: the file is read ahead, at least.
            Some(libc::EINVAL) if advice == libc::MADV_POPULATE_READ => advice = libc::MADV_WILLNEED,
            Some(libc::EINTR | libc::EAGAIN) => {}
            _ => return Err(error),
        }
    }
}
