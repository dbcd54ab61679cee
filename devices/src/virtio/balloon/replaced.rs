//! Which parts of a privately mapped file anonymous memory has taken the place of.
//!
//! The kernel keeps a structure for each mapping, and a process can have 65,530 of them (`vm.max_map_count`), all that is
//! not guest memory included. A guest chooses which pages it gives up, so what it can make of that is bounded, for as long
//! as its memory lives: memory is replaced in blocks, each once at most, and in [`MAX_REPLACEMENTS`] steps at most. A step
//! adds two mappings if it is in the middle of one.

use std::ops::Range;

/// Bytes of guest memory that are replaced together, and lie at a multiple of it. Linux reports free pages by 2 MiB and
/// more, and fills a balloon with runs of pages that are mostly longer than this.
const BLOCK: u64 = 64 << 10;
/// Times that memory is replaced, each time as many blocks as lie side by side: a quarter of the mappings that a process
/// can have.
const MAX_REPLACEMENTS: u32 = 8192;

/// What can be done with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It is anonymous memory already.
    Replaced,
    /// Whole blocks that are not.
    Whole,
    /// Less than a block that is not.
    Fraction,
}

/// The blocks that were replaced, by their guest-physical addresses.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    /// A bit for each block, up to the last one that was replaced.
    blocks: Vec<u64>,
    replacements: u32,
}

impl Replaced {
    fn contains(&self, block: u64) -> bool {
        self.blocks.get((block / 64) as usize).is_some_and(|bits| bits & 1 << (block % 64) != 0)
    }

    /// Takes `addresses` apart into runs of one kind, in order.
    pub(super) fn parts(&self, addresses: &Range<u64>) -> Vec<(Part, Range<u64>)> {
        let mut parts: Vec<(Part, Range<u64>)> = Vec::new();
        let mut start = addresses.start;
        while start < addresses.end {
            let block = start / BLOCK;
            let end = addresses.end.min((block + 1).saturating_mul(BLOCK));
            let part = match end - start {
                _ if self.contains(block) => Part::Replaced,
                BLOCK => Part::Whole,
                _ => Part::Fraction,
            };
            match parts.last_mut() {
                Some((last, run)) if *last == part => run.end = end,
                _ => parts.push((part, start..end)),
            }
            start = end;
        }
        parts
    }

    /// Whether memory may be replaced once more, which counts it.
    pub(super) fn spend(&mut self) -> bool {
        let may = self.replacements < MAX_REPLACEMENTS;
        self.replacements += u32::from(may);
        may
    }

    /// Notes that the whole blocks at `addresses` were replaced.
    pub(super) fn insert(&mut self, addresses: &Range<u64>) {
        for block in addresses.start / BLOCK..addresses.end / BLOCK {
            let word = (block / 64) as usize;
            if word >= self.blocks.len() {
                self.blocks.resize(word + 1, 0);
            }
            if let Some(bits) = self.blocks.get_mut(word) {
                *bits |= 1 << (block % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_apart_by_what_is_there() {
        let mut replaced = Replaced::default();
        replaced.insert(&(2 * BLOCK..3 * BLOCK));
        replaced.insert(&(100 * BLOCK..101 * BLOCK));
        let half = BLOCK / 2;
        assert_eq!(
            replaced.parts(&(half..5 * BLOCK + half)),
            [
                (Part::Fraction, half..BLOCK),
                (Part::Whole, BLOCK..2 * BLOCK),
                (Part::Replaced, 2 * BLOCK..3 * BLOCK),
                (Part::Whole, 3 * BLOCK..5 * BLOCK),
                (Part::Fraction, 5 * BLOCK..5 * BLOCK + half),
            ]
        );
        let inside = 100 * BLOCK + half..100 * BLOCK + half + 1;
        assert_eq!(replaced.parts(&inside), [(Part::Replaced, inside.clone())]);
        assert_eq!(replaced.parts(&(half..half)), []);
    }

    #[test]
    fn memory_is_replaced_so_often_and_no_more() {
        let mut replaced = Replaced::default();
        assert_eq!((0..10 * MAX_REPLACEMENTS).filter(|_| replaced.spend()).count() as u32, MAX_REPLACEMENTS);
    }
}
