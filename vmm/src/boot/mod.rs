//! Loads a kernel, its initrd and its command line into guest memory and says where the boot vCPU starts.
//!
//! Kernels are uncompressed x86-64 ELF files, started by their PVH entry when they have one and by the 64-bit Linux
//! entry otherwise, and bzImages, which unpack themselves. A file is read straight into guest memory, and only after all
//! of its headers have been checked here; what it says is not trusted.
//!
//! [`load`] expects memory that is all zeroes, as it is when new: neither the `.bss` of a kernel nor the unused parts of
//! tables are written, since every page that is touched costs time.

mod bzimage;
mod elf;
mod error;
mod format;
mod image;
mod initrd;
mod kernel;
mod memory_map;
mod pvh;
mod registers;
mod zero_page;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::path::Path;

use devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

pub use self::error::{BootError, ImageError};
pub use self::format::Format;
pub use self::kernel::Kernel;
pub use self::memory_map::{MemoryMap, MemoryRange, RangeKind};
pub use self::registers::{BootRegisters, EntryPoint, registers};

use crate::layout;

/// What a guest is booted from.
#[derive(Clone, Copy, Debug)]
pub struct BootSource<'a> {
    /// The kernel: vmlinux (ELF) or bzImage.
    pub kernel: &'a Path,
    /// The initial RAM disk, if any.
    pub initrd: Option<&'a Path>,
    /// The kernel command line, without a NUL.
    pub cmdline: &'a str,
    /// Guest-physical address of the ACPI root pointer, from [`acpi::write_tables`](crate::acpi::write_tables).
    pub rsdp: u64,
}

/// Opens `path` as a kernel or initrd is opened, and looks no further.
///
/// # Errors
/// [`ImageError`] when it is not there, cannot be read, or is not a file with something in it.
pub fn check(path: &std::path::Path) -> Result<(), ImageError> {
    image::open(path).map(drop)
}

/// Loads what `source` names into `memory` (zeroed) and writes what the kernel is told at its start.
///
/// Fails without side effects outside of `memory`, which then is of no more use.
pub fn load(memory: &GuestMemory, source: &BootSource) -> Result<EntryPoint, BootError> {
    let map = MemoryMap::new(memory);
    check_cmdline(source.cmdline)?;

    let in_kernel = |reason| BootError::Kernel { path: source.kernel.into(), reason };
    let (mut file, _) = image::open(source.kernel).map_err(in_kernel)?;
    let kernel = Kernel::parse(&mut file, &map).map_err(in_kernel)?;
    let length = source.cmdline.len();
    if length > kernel.cmdline_limit {
        let path = source.kernel.into();
        return Err(BootError::CmdlineTooLong { path, length, limit: kernel.cmdline_limit });
    }
    kernel.load(memory, &mut file).map_err(in_kernel)?;

    let initrd = source
        .initrd
        .map(|path| {
            initrd::load(memory, &map, &kernel, path)
                .map_err(|reason| BootError::Initrd { path: path.into(), reason })
        })
        .transpose()?;

    let mut cmdline = Vec::with_capacity(length.saturating_add(1));
    cmdline.extend_from_slice(source.cmdline.as_bytes());
    cmdline.push(0);
    write(memory, &map, "the command line", layout::CMDLINE_START, &cmdline)?;
    match kernel.entry {
        EntryPoint::Pvh(_) => pvh::write_start_info(memory, &map, initrd, source.rsdp)?,
        EntryPoint::Linux64(_) => {
            zero_page::write_boot_params(memory, &map, &kernel, initrd, source.rsdp)?;
            zero_page::write_tables(memory, &map, kernel.end())?;
        }
    }
    Ok(kernel.entry)
}

/// Refuses characters that would end the command line early or that the kernel would take for white space.
fn check_cmdline(cmdline: &str) -> Result<(), BootError> {
    match cmdline.char_indices().find(|(_, character)| character.is_control()) {
        Some((offset, character)) => Err(BootError::CmdlineCharacter { character, offset }),
        None => Ok(()),
    }
}

/// Writes one of the structures below [`layout::LOW_RAM_END`].
fn write(
    memory: &GuestMemory,
    map: &MemoryMap,
    what: &'static str,
    address: u64,
    bytes: &[u8],
) -> Result<(), BootError> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(|source| BootError::Memory {
        what,
        address,
        ram: map.ram_size(),
        source,
    })
}
