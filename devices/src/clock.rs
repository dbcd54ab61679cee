//! The host's clocks, in nanoseconds.
#![expect(unsafe_code, reason = "clock_gettime(2)")]

const NS_PER_SECOND: u64 = 1_000_000_000;

/// The time now by CLOCK_MONOTONIC, which no change of the date moves.
pub fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// User and system time of all threads of this process until now.
pub fn process_cpu() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the kernel to write one `timespec`. Both clocks always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    number(time.tv_sec).saturating_mul(NS_PER_SECOND).saturating_add(number(time.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = (monotonic(), process_cpu());
        while process_cpu() == before.1 {}
        assert!(monotonic() > before.0 && process_cpu() > before.1);
    }
}
