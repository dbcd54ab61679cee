//! What can be wrong with a kernel, an initrd or a command line. Every message is one line with the file, the value, the
//! limit and the mend.

use std::io;
use std::path::PathBuf;

use super::format::Format;

/// The guest can't be booted from its [`BootSource`](super::BootSource).
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel file can't be used.
    #[error("kernel {path:?}: {reason}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ImageError,
    },
    /// The initrd file can't be used.
    #[error("initrd {path:?}: {reason}")]
    Initrd {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ImageError,
    },
    /// The command line is longer than this kernel takes.
    #[error(
        "kernel command line: {length} bytes, but this kernel ({path:?}) takes at most {limit}: shorten it by {}",
        length.saturating_sub(*limit)
    )]
    CmdlineTooLong {
        /// The kernel.
        path: PathBuf,
        /// Length of the command line in bytes, without its NUL.
        length: usize,
        /// The most that the kernel takes, in bytes.
        limit: usize,
    },
    /// The command line has a character that the kernel would not read as part of it.
    #[error("kernel command line: control character {character:?} at byte {offset}: remove it")]
    CmdlineCharacter {
        /// The character.
        character: char,
        /// Where it is, in bytes from the start.
        offset: usize,
    },
    /// What the kernel is told at its start does not fit in the guest's memory.
    #[error(
        "{what} at {address:#x} can't be written: the guest has {ram} bytes of memory; give it more (1M is the least)"
    )]
    Memory {
        /// What was to be written.
        what: &'static str,
        /// Guest-physical address.
        address: u64,
        /// RAM of the guest in bytes.
        ram: u64,
        /// The failed access.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    /// The guest's memory is in more pieces than the boot protocol can name.
    #[error("the guest's memory map has {count} ranges; the boot protocol takes at most {limit}")]
    MemoryMapTooLong {
        /// Ranges in the map.
        count: usize,
        /// The most that fit.
        limit: usize,
    },
}

/// What is wrong with a kernel or initrd file. The file's name is in the [`BootError`] around it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file can't be opened.
    #[error("can't be opened: {0}; check the path and its permissions")]
    Open(io::Error),
    /// Reading the file failed.
    #[error("can't be read: {0}")]
    Read(io::Error),
    /// It is no regular file.
    #[error("is {0}, not a regular file: name the file itself")]
    NotAFile(&'static str),
    /// The file has no bytes.
    #[error("is empty (0 bytes): get it again")]
    Empty,
    /// A kernel in a format that is not booted directly.
    #[error("{}", .0.refusal())]
    Format(Format),
    /// The file ends before something that its headers announce.
    #[error("is truncated: {what} ends at byte {end}, the file has {size} bytes; get it again")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Where it should end, in bytes from the start of the file.
        end: u64,
        /// Size of the file in bytes.
        size: u64,
    },
    /// A header field has a value that it can't have.
    #[error("has a broken header: {field} is {value:#x}, {expected}; build or get the kernel again")]
    Field {
        /// The field, by its name in the format's specification.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it has to be.
        expected: &'static str,
    },
    /// A well-formed ELF file that is no 64-bit x86 kernel.
    #[error("is an ELF file {what}; rvmm boots x86-64 kernels: build vmlinux or bzImage with CONFIG_64BIT=y")]
    Machine {
        /// How it differs, such as "for AArch64".
        what: String,
    },
    /// A well-formed ELF file, but of a kind that can't be started.
    #[error("is {what}, not a kernel: name a vmlinux or bzImage")]
    Kind {
        /// What it is, such as "an object file (ET_REL)".
        what: &'static str,
    },
    /// A bzImage that does not know the 64-bit boot protocol.
    #[error("is a bzImage {what}; rvmm needs a 64-bit kernel with boot protocol 2.12 (Linux 3.8) or later")]
    Protocol {
        /// What it lacks.
        what: String,
    },
    /// A part of the kernel lies outside of the guest's RAM.
    #[error(
        "needs {start:#x}..{end:#x} for {what}, which is not in the guest's RAM above {:#x} ({ram} bytes in all): {}",
        crate::layout::HIMEM_START,
        mend_for(*start)
    )]
    OutsideMemory {
        /// What is to lie there.
        what: &'static str,
        /// First guest-physical address.
        start: u64,
        /// Address after the last.
        end: u64,
        /// RAM of the guest in bytes.
        ram: u64,
    },
    /// Two segments of an ELF kernel claim the same memory.
    #[error(
        "has segments that overlap in memory: {:#x}..{:#x} and {:#x}..{:#x}; build the kernel again",
        first.0, first.1, second.0, second.1
    )]
    Overlap {
        /// One segment: first address and the one after the last.
        first: (u64, u64),
        /// The other one.
        second: (u64, u64),
    },
    /// The initrd finds no room beside the kernel.
    #[error(
        "needs {size} bytes in one piece below {limit:#x}, and the kernel leaves {largest} of the guest's {ram} bytes: \
         give the guest more memory or a smaller initrd"
    )]
    NoRoom {
        /// Size of the initrd in bytes.
        size: u64,
        /// Address below which it has to lie.
        limit: u64,
        /// Largest piece that is free, in bytes.
        largest: u64,
        /// RAM of the guest in bytes.
        ram: u64,
    },
    /// The loader found a fault that the checks before it did not.
    #[error("can't be loaded: {0}; it may have changed while it was read")]
    Loader(linux_loader::loader::Error),
    /// Copying into guest memory failed.
    #[error("can't be loaded: {0}; it may have changed while it was read")]
    Copy(vm_memory::GuestMemoryError),
}

/// A kernel that wants to lie low is built wrong; one that wants to lie high needs more memory.
fn mend_for(start: u64) -> &'static str {
    if start < crate::layout::HIMEM_START {
        "link the kernel at 1 MiB or above"
    } else {
        "give the guest more memory"
    }
}
