//! Gets guest memory to start where a huge page can.
//!
//! KVM maps 2 MiB at once only where the guest's address and the host's agree in their low 21 bits. Kernels before 6.7
//! put a mapping anywhere, and a guest then takes a fault for each 4 KiB: five times the exits of a whole boot. So the
//! address space is made such that the next mapping has but one place to go: a hole of its size, rightly aligned, in a
//! reservation that is taken away again afterwards.

use std::io;

/// What a huge page is on x86-64.
const HUGE_PAGE: usize = 2 << 20;

/// A reservation with a hole in it. Dropping it gives back what is around the hole.
pub(super) struct Hole {
    _before: Reserved,
    _after: Reserved,
}

struct Reserved {
    start: usize,
    len: usize,
}

impl Hole {
    /// A hole for `size` bytes. `None` when the address space has no room or `size` is less than a huge page: a mapping
    /// goes anywhere then, and works all the same.
    pub(super) fn new(size: usize) -> Option<Self> {
        if size < HUGE_PAGE {
            return None;
        }
        let len = size.checked_add(HUGE_PAGE)?;
        let start = reserve(len).ok()?;
        let hole = start.next_multiple_of(HUGE_PAGE);
        let before = Reserved { start, len: hole - start };
        let after = Reserved { start: hole + size, len: start + len - (hole + size) };
        drop(Reserved { start: hole, len: size });
        Some(Self { _before: before, _after: after })
    }
}

impl Drop for Reserved {
    #[expect(unsafe_code, reason = "munmap(2) has no safe wrapper")]
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the range is a part of what `reserve` mapped, inaccessible and known to nobody else.
            unsafe { libc::munmap(self.start as *mut libc::c_void, self.len) };
        }
    }
}

/// Takes `len` bytes of address space that nothing can be read from or written to.
#[expect(unsafe_code, reason = "mmap(2) has no safe wrapper")]
fn reserve(len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping, at an address that the kernel chooses, touches nothing that is there.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_around_the_hole_make_up_the_alignment() {
        for size in [HUGE_PAGE, 3 * HUGE_PAGE + 4096, 128 << 20] {
            let hole = Hole::new(size).unwrap();
            let Hole { _before: before, _after: after } = &hole;
            let start = before.start + before.len;
            assert_eq!(start % HUGE_PAGE, 0);
            assert_eq!(after.start - start, size);
            assert_eq!(before.len + after.len, HUGE_PAGE);
        }
    }

    #[test]
    fn small_and_impossible_sizes_get_none() {
        assert!(Hole::new(4096).is_none());
        assert!(Hole::new(usize::MAX - 4096).is_none());
    }
}
