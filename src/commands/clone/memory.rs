//! What memory a process has, as the host counts it.

use std::fs;

use serde::Serialize;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Memory {
    /// Of pages that nobody else has.
    pub(super) private: u64,
    /// Of pages that others have as well: the snapshot's in the page cache, rvmm's code.
    pub(super) shared: u64,
    /// Its share of all of its pages: those that N processes have count one N-th.
    pub(super) proportional: u64,
}

impl Memory {
    /// What the process `pid` has now; `None` when it has ended.
    pub(super) fn of(pid: u32) -> Option<Self> {
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().map(|text| Self::read(&text))
    }

    fn read(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok());
            kib.unwrap_or_default().saturating_mul(1024)
        };
        Self {
            private: field("Private_Clean").saturating_add(field("Private_Dirty")),
            shared: field("Shared_Clean").saturating_add(field("Shared_Dirty")),
            proportional: field("Pss"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_count_is_read_by_its_names() {
        let text = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  3000 kB\nPss:  700 kB\nPss_Dirty: 9 kB\n\
                    Shared_Clean: 2000 kB\nShared_Dirty: 1 kB\nPrivate_Clean: 16 kB\nPrivate_Dirty:  400 kB\n";
        let Memory { private, shared, proportional } = Memory::read(text);
        assert_eq!((private, shared, proportional), (416 << 10, 2001 << 10, 700 << 10));
        assert!(Memory::of(std::process::id()).unwrap().private > 0);
    }
}
