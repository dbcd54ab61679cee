//! Brings pages of guest memory in before the guest asks for them.
#![expect(unsafe_code, reason = "madvise(2) has no safe wrapper for a mapping that vm-memory owns")]

use std::io;
use std::ops::Range;
use std::thread::{self, JoinHandle};

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

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
    let mut first = 0;
    for region in memory.iter() {
        let last = first + region.len();
        let start = pages.ranges().partition_point(|range| range.end <= first);
        for range in pages.ranges().iter().skip(start).take_while(|range| range.start < last) {
            let within = range.start.max(first)..range.end.min(last);
            for start in (within.start..within.end).step_by(AT_ONCE as usize) {
                let part = start - first..within.end.min(start + AT_ONCE) - first;
                // SAFETY: the part is cut to the region, whose mapping `memory` keeps.
                unsafe { bring_in(region.as_ptr(), &part)? };
            }
        }
        first = last;
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

/// Brings in a part of the mapping that begins at `mapping`.
///
/// # Safety
/// The part is in the mapping.
unsafe fn bring_in(mapping: *mut u8, part: &Range<u64>) -> io::Result<()> {
    let address = mapping.wrapping_add(part.start as usize).cast();
    let len = (part.end - part.start) as usize;
    let mut advice = libc::MADV_POPULATE_READ;
    loop {
        // SAFETY: the range is in a mapping that is there, as the caller says; neither advice changes what is in it.
        if unsafe { libc::madvise(address, len, advice) } == 0 {
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
