//! Opening and reading the files that a guest is booted from. They may be anything that a path can name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::error::ImageError;

/// Opens a regular, non-empty file for reading and returns it with its size in bytes.
///
/// A FIFO or a device does not make it wait: the file is opened with `O_NONBLOCK`, and only then is looked at.
pub(super) fn open(path: &Path) -> Result<(WholeReads<File>, u64), ImageError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(ImageError::Open)?;
    let metadata = file.metadata().map_err(ImageError::Read)?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        return Err(ImageError::NotAFile(if kind.is_dir() {
            "a directory"
        } else if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_block_device() {
            "a block device"
        } else if kind.is_char_device() {
            "a character device"
        } else {
            "a special file"
        }));
    }
    if metadata.len() == 0 {
        return Err(ImageError::Empty);
    }
    Ok((WholeReads(file), metadata.len()))
}

/// A file that a read of guest memory gets whole, or to its end. Some file systems (9p, FUSE) give less at a time, and
/// vm-memory takes the first short read for the end.
#[derive(Debug)]
pub(super) struct WholeReads<F>(pub(super) F);

impl<F: Read> Read for WholeReads<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<F: Seek> Seek for WholeReads<F> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl<F: ReadVolatile> ReadVolatile for WholeReads<F> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_volatile(&mut buffer.offset(filled)?) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(VolatileMemoryError::IOError(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Reads up to `buffer.len()` bytes at `offset` and returns how many there were before the end of the file.
pub(super) fn read_at<F: Read + Seek>(
    file: &mut F,
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize, ImageError> {
    file.seek(SeekFrom::Start(offset)).map_err(ImageError::Read)?;
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ImageError::Read(error)),
        }
    }
    Ok(filled)
}

/// Reads exactly `buffer.len()` bytes at `offset`; `what` names them when the file, of `size` bytes, ends before.
pub(super) fn read_exact_at<F: Read + Seek>(
    file: &mut F,
    what: &'static str,
    offset: u64,
    buffer: &mut [u8],
    size: u64,
) -> Result<(), ImageError> {
    let end = offset.saturating_add(buffer.len() as u64);
    if end > size || read_at(file, offset, buffer)? < buffer.len() {
        return Err(ImageError::Truncated { what, end, size });
    }
    Ok(())
}
