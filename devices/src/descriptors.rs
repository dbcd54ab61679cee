//! The process's file descriptors, of which a guest must not take the last.

use std::os::fd::RawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept for the API's clients, disks and snapshots.
const RESERVED: u64 = 64;

/// Raises the limit on open descriptors as far as this user may (RLIMIT_NOFILE). Best effort.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Whether `fd` is so high that few descriptors are left: the host gives out the lowest that is free. A guest's connection
/// has to be refused then.
pub fn is_reserved(fd: RawFd) -> bool {
    is_among_last(fd, getrlimit(Resource::Nofile).current)
}

fn is_among_last(fd: RawFd, limit: Option<u64>) -> bool {
    let Some(limit) = limit else { return false };
    // Of few, half are kept.
    let usable = limit.saturating_sub(RESERVED).max(limit / 2);
    u64::try_from(fd).is_ok_and(|fd| fd >= usable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_reserved() {
        for (limit, first_reserved) in [(1024, 960), (20_000, 19_936), (100, 50), (128, 64)] {
            assert!(!is_among_last(first_reserved - 1, Some(limit)), "{limit}");
            assert!(is_among_last(first_reserved, Some(limit)), "{limit}");
        }
        assert!(!is_among_last(RawFd::MAX, None));
    }
}
