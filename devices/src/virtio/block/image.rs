//! The file behind a drive: a regular file or a block device of the host.
#![expect(unsafe_code, reason = "fcntl(2), fstatfs(2), fallocate(2) and ioctl(2)")]

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use log::warn;

use super::direct::{Alignment, Bounce};
use super::error::BlockError;
use super::request::SECTOR_SIZE;
use crate::patience::while_in_use;
use crate::same_file;

/// Zeroes that are written at a time where the file system cannot zero a range. Aligned as direct I/O may want it.
#[repr(align(4096))]
struct Zeroes([u8; 64 << 10]);
static ZEROES: Zeroes = Zeroes([0; 64 << 10]);

/// Discards a range of bytes of a block device: `_IO(0x12, 119)` of linux/fs.h.
const BLKDISCARD: libc::c_ulong = 0x1277;
/// File systems in memory (linux/magic.h), in `f_type` of statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// Whether the guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It may not.
    ReadOnly,
    /// It may.
    ReadWrite,
}

/// Whether data goes through the host's page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageCache {
    /// It does.
    Used,
    /// It does not: O_DIRECT.
    Bypassed,
}

/// What a disk image is opened for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    pub access: Access,
    pub page_cache: PageCache,
}

/// An open and locked disk image.
#[derive(Debug)]
pub(super) struct DiskImage {
    /// Shared with the image that this one is the larger or smaller successor of: they have one lock.
    file: Arc<File>,
    /// The same file without O_DIRECT, where direct I/O takes no single sectors.
    cached: Option<File>,
    sectors: u64,
    is_block_device: bool,
    /// What direct I/O wants. None when data goes through the page cache.
    alignment: Option<Alignment>,
    in_memory: bool,
}

impl DiskImage {
    /// Opens `path` and locks it until the image is dropped: for itself when it can be written, else shared.
    ///
    /// # Errors
    /// [`BlockError`] when it is not there, is no disk, has a size that a disk cannot have, or is in use.
    pub(super) fn open(path: &Path, purpose: Purpose) -> Result<Self, BlockError> {
        let (file, metadata) = open_file(path, purpose.access)?;
        let is_in_use = |error: &BlockError| matches!(error, BlockError::InUse { .. });
        while_in_use(is_in_use, || lock_file(&file, path, purpose.access))?;
        Self::new(Arc::new(file), &metadata, path, purpose)
    }

    /// The image at `path` that takes the place of this one. It may be the same file, with another size by now.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn successor(&self, path: &Path, purpose: Purpose) -> Result<Self, BlockError> {
        let (file, metadata) = open_file(path, purpose.access)?;
        let current = self.file.metadata().map_err(inspect(path, "read the status"))?;
        if same_file(&current, &metadata) {
            // The lock of this one would keep the other out.
            return Self::new(self.file.clone(), &metadata, path, purpose);
        }
        lock_file(&file, path, purpose.access)?;
        Self::new(Arc::new(file), &metadata, path, purpose)
    }

    fn new(file: Arc<File>, metadata: &Metadata, path: &Path, purpose: Purpose) -> Result<Self, BlockError> {
        let path_buf = || path.to_path_buf();
        let is_block_device = metadata.file_type().is_block_device();
        let alignment = match purpose.page_cache {
            PageCache::Used => None,
            PageCache::Bypassed => {
                let alignment = Alignment::of(&file, is_block_device)
                    .map_err(inspect(path, "find the alignment for direct I/O"))?
                    .ok_or_else(|| BlockError::NoDirect { path: path_buf() })?;
                Some(alignment)
            }
        };
        let size = (&*file).seek(SeekFrom::End(0)).map_err(inspect(path, "find the size"))?;
        if size == 0 {
            return Err(BlockError::Empty { path: path_buf() });
        }
        set_flags(&file, purpose.page_cache)
            .and_then(|()| alignment.map_or(Ok(()), |alignment| try_direct(&file, alignment)))
            .map_err(|source| match source.raw_os_error() {
                Some(libc::EINVAL) if alignment.is_some() => BlockError::NoDirect { path: path_buf() },
                _ => inspect(path, "change the flags")(source),
            })?;
        if !size.is_multiple_of(SECTOR_SIZE) {
            return Err(BlockError::OddSize { path: path_buf(), size, multiple: SECTOR_SIZE });
        }
        let needs_cached = alignment.is_some_and(|alignment| !alignment.is_whole_blocks(0, SECTOR_SIZE));
        let cached = needs_cached.then(|| open_again(path, purpose.access, metadata)).transpose()?;
        if let Some(format) = foreign_format(&file) {
            warn!(
                "disk image {} looks like {format}, and is used as a raw image; to convert it: qemu-img convert -O raw",
                path.display()
            );
        }
        let in_memory = is_in_memory(&file);
        Ok(Self { file, cached, sectors: size / SECTOR_SIZE, is_block_device, alignment, in_memory })
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Size in sectors.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Data goes round the page cache, but for parts of blocks.
    pub(super) fn is_direct(&self) -> bool {
        self.alignment.is_some()
    }

    /// The file to move `len` bytes at `offset` by, and what direct I/O wants of their buffers; none when they go through the
    /// page cache, which takes all.
    pub(super) fn route(&self, offset: u64, len: u64) -> (&File, Option<Alignment>) {
        let is_whole = self.alignment.is_none_or(|alignment| alignment.is_whole_blocks(offset, len));
        match &self.cached {
            Some(cached) if !is_whole => (cached, None),
            _ => (&self.file, self.alignment),
        }
    }

    /// Its file system is in memory: data is copied, and never waited for.
    pub(super) fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// Gives the storage of `len` bytes at `offset` back to the host. A host that cannot keeps it: discard is a hint.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let result = if self.is_block_device {
            let range = [offset, len];
            // SAFETY: BLKDISCARD reads two 64-bit numbers, which `range` holds for the call.
            to_result(unsafe { libc::ioctl(self.file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
        } else {
            self.fallocate(libc::FALLOC_FL_PUNCH_HOLE, offset, len)
        };
        match result {
            Err(error) if unsupported(&error) => Ok(()),
            result => result,
        }
    }

    /// Makes `len` bytes at `offset` read as zeroes, and gives their storage back when `unmap` allows it.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64, unmap: Unmap) -> io::Result<()> {
        let mode = match unmap {
            Unmap::Allowed => libc::FALLOC_FL_PUNCH_HOLE,
            Unmap::Forbidden => libc::FALLOC_FL_ZERO_RANGE,
        };
        match self.fallocate(mode, offset, len) {
            Err(error) if unsupported(&error) => self.write_zero_blocks(offset, len),
            result => result,
        }
    }

    fn write_zero_blocks(&self, offset: u64, len: u64) -> io::Result<()> {
        let (file, _) = self.route(offset, len);
        let mut done = 0;
        while done < len {
            let part = (len - done).min(ZEROES.0.len() as u64);
            file.write_all_at(ZEROES.0.get(..part as usize).unwrap_or_default(), offset + done)?;
            done += part;
        }
        Ok(())
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
        let (offset, len) = (offset.try_into().map_err(too_large)?, len.try_into().map_err(too_large)?);
        loop {
            // SAFETY: no memory is passed.
            let result = to_result(unsafe {
                libc::fallocate(self.file.as_raw_fd(), mode | libc::FALLOC_FL_KEEP_SIZE, offset, len)
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Whether zeroing may give storage back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmap {
    /// It may.
    Allowed,
    /// It may not.
    Forbidden,
}

/// Whether the host cannot do this at all, or not to such a range: a block device with sectors of 4 KiB answers EINVAL
/// to one that begins or ends within a sector, which the guest, whose sectors are smaller, may well ask for.
fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::EINVAL))
}

fn to_result(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn inspect<'a>(path: &'a Path, what: &'static str) -> impl Fn(io::Error) -> BlockError + 'a {
    move |source| BlockError::Inspect { path: path.to_path_buf(), what, source }
}

/// Opens what can be a disk.
fn open_file(path: &Path, access: Access) -> Result<(File, Metadata), BlockError> {
    let path_buf = || path.to_path_buf();
    let writable = access == Access::ReadWrite;
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        // Opening a FIFO or a terminal must neither wait nor take it over.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EISDIR) => BlockError::NotADisk { path: path_buf(), kind: "directory" },
            Some(libc::ENXIO) => {
                BlockError::NotADisk { path: path_buf(), kind: "socket or device without a driver" }
            }
            _ => {
                let access = if writable { "writing" } else { "reading" };
                let denied = matches!(
                    source.raw_os_error(),
                    Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ETXTBSY)
                );
                let mend = match (denied, writable) {
                    (true, true) => " (get the right to write it, or make the drive read-only)",
                    (true, false) => " (get the right to read it)",
                    (false, _) => "",
                };
                BlockError::Open { path: path_buf(), access, mend, source }
            }
        })?;
    let metadata = file.metadata().map_err(inspect(path, "read the status"))?;
    let kind = match metadata.file_type() {
        kind if kind.is_file() || kind.is_block_device() => return Ok((file, metadata)),
        kind if kind.is_dir() => "directory",
        kind if kind.is_fifo() => "FIFO",
        kind if kind.is_char_device() => "character device",
        _ => "special file",
    };
    Err(BlockError::NotADisk { path: path_buf(), kind })
}

/// Opens once more the file at `path` that has `metadata`.
fn open_again(path: &Path, access: Access, metadata: &Metadata) -> Result<File, BlockError> {
    let (file, again) = open_file(path, access)?;
    set_flags(&file, PageCache::Used).map_err(inspect(path, "change the flags"))?;
    if !same_file(&again, metadata) {
        let source = io::Error::other("another file took its place just now");
        return Err(inspect(path, "open it twice")(source));
    }
    Ok(file)
}

/// Sets what the file was opened without. O_NONBLOCK goes: with it, io_uring would answer EAGAIN where the page cache has to
/// wait for the disk.
fn set_flags(file: &File, page_cache: PageCache) -> io::Result<()> {
    let flags = match page_cache {
        PageCache::Used => 0,
        PageCache::Bypassed => libc::O_DIRECT,
    };
    // SAFETY: no memory is passed. Access mode and creation flags are ignored by F_SETFL.
    to_result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })
}

/// Reads a block: a file system on top of another takes O_DIRECT, and finds out when it is used that the other does not.
///
/// # Errors
/// EINVAL when there is no direct I/O. Whatever else is wrong, the guest will be told.
fn try_direct(file: &File, alignment: Alignment) -> io::Result<()> {
    let block = u64::from(alignment.block);
    match file.read_at(Bounce::new(block, alignment).front(block), 0) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Formats that are not raw, by the first bytes of their files.
const FOREIGN_FORMATS: [(&[u8], &str); 5] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"<<< Oracle VM VirtualBox Disk Image", "VDI"),
];

/// Which other format `file` looks to have, if the page cache has its first bytes: no start waits for a disk. A guest may write
/// such bytes to a raw image, too.
fn foreign_format(file: &File) -> Option<&'static str> {
    let mut head = [0; SECTOR_SIZE as usize];
    let mut buffer = [io::IoSliceMut::new(&mut head)];
    let count = rustix::io::preadv2(file, &mut buffer, 0, rustix::io::ReadWriteFlags::NOWAIT).ok()?;
    let head = head.get(..count)?;
    FOREIGN_FORMATS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| *format)
}

/// Whether the file system that `file` is on is in memory. One that cannot be asked is not.
fn is_in_memory(file: &File) -> bool {
    // SAFETY: all zeros is a valid `statfs`, a struct of integers.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `status` is a valid place for the kernel to write one `statfs`.
    let known = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut status) } == 0;
    known && matches!(status.f_type, TMPFS_MAGIC | RAMFS_MAGIC)
}

/// Locks `file`, which was opened at `path`, until it is closed.
fn lock_file(file: &File, path: &Path, access: Access) -> Result<(), BlockError> {
    lock(file, access).map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => BlockError::InUse { path: path.to_path_buf() },
        _ => inspect(path, "take the lock")(error),
    })
}

/// Takes a lock of the open file description, which no other close of the same file gives up.
fn lock(file: &File, access: Access) -> io::Result<()> {
    let kind = match access {
        Access::ReadOnly => libc::F_RDLCK,
        Access::ReadWrite => libc::F_WRLCK,
    };
    let whole_file = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the kernel reads one `flock`, which lives for the call.
    let result =
        to_result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole_file) });
    match result {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)) =>
        {
            warn!(
                "the file system of a disk image has no locks; make sure that nobody else writes it: {error}"
            );
            Ok(())
        }
        result => result,
    }
}
