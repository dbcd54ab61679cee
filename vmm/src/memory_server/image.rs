//! Which bytes each page of a snapshot has: those of the last file that has it, or zeroes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::memory::{Overlay, Source, data_extents};

/// Bytes of the smallest page.
pub(super) const PAGE: u64 = 4096;

/// The memory of a snapshot. Offsets are those of its memory file: from the lowest address up, without the MMIO gap.
#[derive(Debug)]
pub struct Image {
    len: u64,
    files: Vec<Arc<File>>,
    /// What is not a hole: in ascending order, without overlaps, in whole pages.
    pieces: Vec<Piece>,
}

/// A range of offsets that is in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    range: Range<u64>,
    /// Its index in `files`.
    file: usize,
}

/// What there is from an offset on, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Bytes of a file.
    Data(Range<u64>),
    /// Zeroes.
    Hole(Range<u64>),
}

impl Image {
    /// The first `len` bytes of memory in the files of `source`.
    ///
    /// # Errors
    /// `len` is not in whole pages, or the base is shorter; or what the host said.
    pub fn new(source: Source, len: u64) -> io::Result<Self> {
        let base = source.base.metadata()?.len();
        if !len.is_multiple_of(PAGE) || base < len {
            let message = format!("its memory file has {base} bytes instead of {len}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let whole = |range: Range<u64>| range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE).min(len);
        let extents = data_extents(&source.base, len).into_iter().map(whole);
        let mut pieces = over(Vec::new(), extents, 0);
        let mut files = vec![source.base];
        for Overlay { file, pages } in source.overlays {
            pieces = over(pieces, pages.into_iter().map(whole), files.len());
            files.push(file);
        }
        Ok(Self { len, files, pieces })
    }

    /// Bytes of memory.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no memory at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is at `offset`, with all that is like it around.
    pub(super) fn run(&self, offset: u64) -> Run {
        let next = self.pieces.partition_point(|piece| piece.range.end <= offset);
        let start =
            next.checked_sub(1).and_then(|last| self.pieces.get(last)).map_or(0, |last| last.range.end);
        match self.pieces.get(next) {
            Some(piece) if piece.range.start <= offset => Run::Data(piece.range.clone()),
            Some(piece) => Run::Hole(start..piece.range.start),
            None => Run::Hole(start..self.len),
        }
    }

    /// Reads all of `buffer` from `offset` on. Says whether there is data at all.
    ///
    /// # Errors
    /// What the host said, also that a file has become too short.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let end = offset.saturating_add(buffer.len() as u64);
        let first = self.pieces.partition_point(|piece| piece.range.end <= offset);
        let pieces = self.pieces.iter().skip(first).take_while(|piece| piece.range.start < end);
        let mut done = offset;
        let mut found = false;
        for Piece { range, file } in pieces {
            let (start, stop) = (range.start.max(offset), range.end.min(end));
            let at = |offset_in_file: u64| (offset_in_file - offset) as usize;
            buffer.get_mut(at(done)..at(start)).unwrap_or_default().fill(0);
            let target = buffer.get_mut(at(start)..at(stop)).unwrap_or_default();
            if let Some(file) = self.files.get(*file) {
                file.read_exact_at(target, start)?;
            }
            done = stop;
            found = true;
        }
        buffer.get_mut((done - offset) as usize..).unwrap_or_default().fill(0);
        Ok(found)
    }
}

/// Puts the ranges `upper`, of file `file`, over the pieces `lower`. Both are in ascending order; of ranges that are not, or
/// that are empty, the rest is left out.
fn over(lower: Vec<Piece>, upper: impl IntoIterator<Item = Range<u64>>, file: usize) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    let mut lower = lower.into_iter();
    let mut piece = lower.next();
    let mut last = 0;
    for range in upper {
        let range = range.start.max(last)..range.end;
        if range.is_empty() {
            continue;
        }
        last = range.end;
        while let Some(Piece { range: below, file }) = piece.take() {
            let front = below.start..below.end.min(range.start);
            if !front.is_empty() {
                merged.push(Piece { range: front, file });
            }
            if below.end > range.end {
                piece = Some(Piece { range: below.start.max(range.end)..below.end, file });
                break;
            }
            piece = lower.next();
        }
        match merged.last_mut() {
            Some(before) if before.file == file && before.range.end == range.start => {
                before.range.end = range.end;
            }
            _ => merged.push(Piece { range, file }),
        }
    }
    merged.extend(piece);
    merged.extend(lower);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 64 * PAGE;

    fn pages(numbers: Range<u64>) -> Range<u64> {
        numbers.start * PAGE..numbers.end * PAGE
    }

    fn file(parts: &[(Range<u64>, u8)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        for (range, byte) in parts {
            let range = pages(range.clone());
            file.write_all_at(&vec![*byte; (range.end - range.start) as usize], range.start).unwrap();
        }
        file
    }

    /// A full snapshot with pages 16 to 31, a diff with 20 and 21, another with 21, 30 to 33 and 40.
    fn chain() -> Image {
        let overlays = vec![
            Overlay { file: file(&[(20..22, 2)]).into(), pages: vec![pages(20..22)] },
            Overlay {
                file: file(&[(21..22, 3), (30..34, 4), (40..41, 5)]).into(),
                pages: vec![pages(21..22), pages(30..34), pages(40..41)],
            },
        ];
        Image::new(Source { base: Arc::new(file(&[(16..32, 1)])), overlays }, LEN).unwrap()
    }

    #[test]
    fn each_page_is_that_of_the_last_file_that_has_it() {
        let chain = chain();
        let mut all = vec![0xff; LEN as usize];
        assert!(chain.read(0, &mut all).unwrap());
        for (page, number) in all.chunks(PAGE as usize).zip(0..) {
            let byte = match number {
                16..20 | 22..30 => 1,
                20 => 2,
                21 => 3,
                30..34 => 4,
                40 => 5,
                _ => 0,
            };
            assert!(page.iter().all(|found| *found == byte), "page {number}: {} {byte}", page[0]);
        }
        let mut one = [0xff; PAGE as usize];
        assert!(!chain.read(63 * PAGE, &mut one).unwrap());
        assert_eq!(one, [0; PAGE as usize]);
    }

    #[test]
    fn runs_end_where_the_next_file_or_hole_begins() {
        let chain = chain();
        assert_eq!(chain.run(0), Run::Hole(pages(0..16)));
        assert_eq!(chain.run(17 * PAGE), Run::Data(pages(16..20)));
        assert_eq!(chain.run(21 * PAGE), Run::Data(pages(21..22)));
        assert_eq!(chain.run(33 * PAGE), Run::Data(pages(30..34)));
        assert_eq!(chain.run(39 * PAGE), Run::Hole(pages(34..40)));
        assert_eq!(chain.run(63 * PAGE), Run::Hole(pages(41..64)));
    }

    #[test]
    fn ranges_out_of_order_make_no_overlap() {
        let lower = over(Vec::new(), [pages(0..64)], 0);
        let pieces = over(lower, [pages(8..8), pages(10..20), pages(12..22), pages(1..2), pages(60..80)], 1);
        let ends: Vec<_> = pieces.iter().flat_map(|piece| [piece.range.start, piece.range.end]).collect();
        assert!(ends.is_sorted(), "{pieces:?}");
        assert_eq!(pieces.iter().filter(|piece| piece.file == 1).count(), 2, "{pieces:?}");
    }

    #[test]
    fn a_file_that_is_too_short_is_refused_and_one_that_becomes_so_is_noticed() {
        let base = Arc::new(file(&[(0..64, 1)]));
        let pages = Image::new(Source { base: base.clone(), overlays: Vec::new() }, LEN).unwrap();
        base.set_len(LEN / 2).unwrap();
        let mut page = [0; PAGE as usize];
        assert!(pages.read(0, &mut page).unwrap());
        let error = pages.read(LEN / 2, &mut page).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        let error = Image::new(Source { base, overlays: Vec::new() }, LEN).unwrap_err();
        assert_eq!(error.to_string(), "its memory file has 131072 bytes instead of 262144");
    }
}
