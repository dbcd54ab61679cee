//! Having all of guest memory there before the guest goes on.
#![expect(unsafe_code, reason = "madvise(2) has no safe wrapper, nor has reading from a mapping")]

use std::io;

use devices::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::MemoryError;

/// Bytes from one read to the next where the host cannot do it by itself.
const PAGE: usize = 4096;

/// Reads every page of `memory`, so that the guest waits for none of those that it reads.
///
/// # Errors
/// [`MemoryError::Read`] when a file cannot be read.
pub fn prefault(memory: &GuestMemory) -> Result<(), MemoryError> {
    let mut offset = 0;
    for region in memory.iter() {
        let (start, len) = (region.as_ptr(), region.len() as usize);
        // SAFETY: the range is one mapping of ours, which `memory` keeps; its content stays as it is.
        let result = unsafe { libc::madvise(start.cast(), len, libc::MADV_POPULATE_READ) };
        if result != 0 {
            let source = io::Error::last_os_error();
            // Linux before 5.14 does not know it.
            if source.raw_os_error() != Some(libc::EINVAL) {
                return Err(MemoryError::Read { offset, source });
            }
            for place in (0..len).step_by(PAGE) {
                // SAFETY: within the mapping, of which any byte may be read at any time.
                unsafe { start.wrapping_add(place).read_volatile() };
            }
        }
        offset += region.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::memory::{HugePages, MIB, Source, restore};

    #[test]
    fn all_of_a_file_is_there_when_it_was_asked_for() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        let source = Source { base: Arc::new(file), overlays: Vec::new() };
        let memory = restore(4, &source, HugePages::None, false).unwrap();
        let resident = || {
            let region = memory.iter().next().unwrap();
            let start = format!("{:x}-", region.as_ptr() as usize);
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mapping = smaps.lines().skip_while(|line| !line.starts_with(&start));
            let line = mapping.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        assert_eq!(resident(), 0);
        prefault(&memory).unwrap();
        assert_eq!(resident(), 4 * MIB);
    }
}
