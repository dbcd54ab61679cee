//! What processes have cost.

use std::time::Duration;

/// Processor time of all processes that this one has waited for so far.
#[expect(unsafe_code, reason = "getrusage(2) has no wrapper in the standard library")]
pub(crate) fn of_children() -> Duration {
    // SAFETY: all zeroes is a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is good for the struct that is written.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    assert_eq!(result, 0, "getrusage: {}", std::io::Error::last_os_error());
    [usage.ru_utime, usage.ru_stime]
        .map(|time| Duration::new(time.tv_sec.cast_unsigned(), time.tv_usec.cast_unsigned() as u32 * 1000))
        .iter()
        .sum()
}
