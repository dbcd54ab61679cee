//! Pages and runs of pages that a driver names, in any order and as often as it likes, made into few ranges.

use std::ops::Range;

/// Sorts `ranges` and joins those that touch or overlap; the bytes that were named more than once.
pub(super) fn merge(ranges: &mut Vec<Range<u64>>) -> u64 {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut twice = 0;
    ranges.dedup_by(|next, last| {
        if next.start > last.end {
            return false;
        }
        twice += next.end.min(last.end) - next.start;
        last.end = last.end.max(next.end);
        true
    });
    twice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(ranges: &[Range<u64>]) -> (Vec<Range<u64>>, u64) {
        let mut ranges = ranges.to_vec();
        let twice = merge(&mut ranges);
        (ranges, twice)
    }

    #[test]
    fn neighbours_become_one_whatever_their_order() {
        assert_eq!(merged(&[3..4, 1..2, 2..3, 7..8]), (vec![1..4, 7..8], 0));
        assert_eq!(merged(&[]), (vec![], 0));
    }

    #[test]
    fn what_is_named_twice_is_counted_and_there_once() {
        assert_eq!(merged(&[5..6, 7..8, 5..6, 5..6]), (vec![5..6, 7..8], 2));
        assert_eq!(merged(&[0..10, 2..4, 8..12, 13..14]), (vec![0..12, 13..14], 4));
    }
}
