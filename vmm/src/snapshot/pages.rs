//! Sets of pages of a memory file: offsets in it, in bytes, as sorted ranges of whole pages.

use std::ops::Range;

/// Bytes of a page, of every snapshot.
pub const PAGE_SIZE: u64 = 4096;

/// A set of pages: ranges of offsets in bytes, of whole pages, sorted, apart from one another, and not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages(Vec<Range<u64>>);

impl Pages {
    /// All whole pages of a file of `len` bytes.
    pub fn all(len: u64) -> Self {
        let mut pages = Self::default();
        pages.push(0..len - len % PAGE_SIZE);
        pages
    }

    /// The pages that any ranges of offsets touch, in any order.
    pub fn of(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut pages = Self::default();
        for range in ranges.into_iter().filter(|range| !range.is_empty()) {
            let end = range.end.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX - (PAGE_SIZE - 1));
            pages.push(range.start - range.start % PAGE_SIZE..end);
        }
        pages
    }

    /// The set with exactly these ranges of page numbers, first and count, if they are sorted, apart and end within the
    /// first `len` bytes: as they are in a file that nobody vouches for.
    pub fn checked(ranges: &[(u64, u64)], len: u64) -> Option<Self> {
        let mut pages = Self::default();
        for (first, count) in ranges {
            let start = first.checked_mul(PAGE_SIZE)?;
            let end = first.checked_add(*count)?.checked_mul(PAGE_SIZE).filter(|end| *end <= len)?;
            let apart = pages.0.last().is_none_or(|last| last.end < start);
            if start >= end || !apart {
                return None;
            }
            pages.0.push(start..end);
        }
        Some(pages)
    }

    /// Page numbers, first and count: what [`Self::checked`] takes.
    pub fn numbers(&self) -> Vec<(u64, u64)> {
        self.0.iter().map(|range| (range.start / PAGE_SIZE, (range.end - range.start) / PAGE_SIZE)).collect()
    }

    /// The ranges.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// The ranges, to keep.
    pub fn into_ranges(self) -> Vec<Range<u64>> {
        self.0
    }

    /// All pages together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds whole pages that do not begin before the last ones that were added.
    pub(super) fn push(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.0.push(range),
        }
    }

    /// The pages of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// The pages of this set that `other` does not have.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        let mut others = other.0.iter().peekable();
        for range in &self.0 {
            let mut start = range.start;
            while others.next_if(|other| other.end <= start).is_some() {}
            while let Some(other) = others.peek().filter(|other| other.start < range.end) {
                left.push(start..other.start);
                start = other.end;
                // It may reach into the next range of ours as well.
                if start >= range.end {
                    break;
                }
                others.next();
            }
            left.push(start..range.end);
        }
        left
    }

    /// The pages that both have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    /// A set with no more than `most` ranges (1 or more) that has all these pages: small gaps are filled.
    #[must_use]
    pub fn coalesced(mut self, most: usize) -> Self {
        let mut gap = PAGE_SIZE;
        while self.0.len() > most.max(1) {
            self.0.dedup_by(|next, last| {
                let near = next.start - last.end <= gap;
                if near {
                    last.end = next.end;
                }
                near
            });
            gap = gap.saturating_mul(2);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(numbers: &[(u64, u64)]) -> Pages {
        Pages::of(numbers.iter().map(|(start, end)| start * PAGE_SIZE..end * PAGE_SIZE).collect())
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one_of_whole_pages() {
        assert_eq!(pages(&[(7, 9), (0, 3), (3, 5), (4, 6), (1, 2)]).numbers(), [(0, 6), (7, 2)]);
        assert_eq!(pages(&[(0, 6), (7, 9)]).bytes(), 8 * PAGE_SIZE);
        assert!(pages(&[(4, 4)]).is_empty());
        assert_eq!(Pages::all(3 * PAGE_SIZE + 1), pages(&[(0, 3)]));
        assert!(Pages::all(PAGE_SIZE - 1).is_empty());
        assert_eq!(Pages::of(vec![1..2, PAGE_SIZE..PAGE_SIZE + 1]), pages(&[(0, 2)]));
        assert_eq!(Pages::of(vec![0..1, u64::MAX - 1..u64::MAX]).bytes() % PAGE_SIZE, 0);
    }

    /// Every pair of sets of pages among the first six.
    #[test]
    fn unions_differences_and_intersections_are_those_of_sets() {
        let set = |bits: u64| {
            let numbers = (0..6).filter(|page| bits >> page & 1 == 1).map(|page| (page, page + 1));
            pages(&numbers.collect::<Vec<_>>())
        };
        for one in 0..64 {
            for other in 0..64 {
                let (left, right) = (set(one), set(other));
                assert_eq!(left.without(&right), set(one & !other), "{one:b} {other:b}");
                assert_eq!(left.union(&right), set(one | other), "{one:b} {other:b}");
                assert_eq!(left.intersection(&right), set(one & other), "{one:b} {other:b}");
            }
        }
    }

    #[test]
    fn small_gaps_are_filled_first_and_no_page_is_lost() {
        let scattered = pages(&[(0, 1), (2, 3), (10, 11), (12, 13), (100, 101)]);
        assert_eq!(scattered.clone().coalesced(5), scattered);
        assert_eq!(scattered.clone().coalesced(3), pages(&[(0, 3), (10, 13), (100, 101)]));
        assert_eq!(scattered.coalesced(0), pages(&[(0, 101)]));
    }

    #[test]
    fn only_sorted_ranges_within_the_file_are_taken_from_it() {
        let check = |ranges: &[(u64, u64)]| Pages::checked(ranges, 10 * PAGE_SIZE);
        for right in [&[][..], &[(0, 10)], &[(0, 1), (2, 8)]] {
            assert_eq!(check(right).unwrap().numbers(), right);
        }
        for wrong in [
            &[(0, 11)][..],
            &[(0, 0)],
            &[(2, 1), (0, 1)],
            &[(0, 1), (1, 1)],
            &[(0, 2), (1, 1)],
            &[(u64::MAX, 1)],
            &[(1, u64::MAX)],
            &[(1 << 52, 1)],
        ] {
            assert_eq!(check(wrong), None, "{wrong:?}");
        }
    }
}
