//! Linux x86 boot images, which unpack themselves: Documentation/arch/x86/boot.rst in the Linux source.

use std::io::{Read, Seek};

use devices::GuestMemory;
use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use linux_loader::loader::KernelLoader;
use vm_memory::{ByteValued, GuestAddress, ReadVolatile};

use super::error::ImageError;
use super::kernel::{Kernel, check_ram};
use super::memory_map::MemoryMap;
use super::registers::EntryPoint;
use crate::layout;

/// Where the setup header begins in the file and in the zero page.
const SETUP_HEADER_OFFSET: usize = 0x1f1;
/// Low byte of the header's jump instruction: the header ends this many bytes after [`JUMP_END`] ("64-bit boot protocol").
const JUMP_OFFSET: usize = 0x201;
const JUMP_END: usize = 0x202;
/// End of `init_size`, the last field that is needed here.
const NEEDED_END: usize = 0x264;
/// `boot_flag` at 0x1fe of every boot sector.
const BOOT_FLAG: u16 = 0xaa55;
/// First protocol version with `xloadflags`, in which a kernel says that it has a 64-bit entry.
const MIN_VERSION: u16 = 0x020c;
/// Unit of `setup_sects`, in bytes.
const SECTOR: u64 = 512;
/// What `setup_sects` of zero means, for the sake of very old kernels.
const DEFAULT_SETUP_SECTS: u64 = 4;
/// Unit of `syssize`, in bytes.
const PARAGRAPH: u64 = 16;
/// The 64-bit entry is this far behind the start of the loaded code ("64-bit boot protocol").
const ENTRY_64_OFFSET: u64 = 0x200;

/// Checks the setup header in `head`, the first bytes of a file of `size` bytes.
pub(super) fn parse(head: &[u8], size: u64, map: &MemoryMap) -> Result<Kernel, ImageError> {
    let header = header_of(head, size)?;
    check_protocol(&header)?;

    let code_offset = setup_size(&header);
    let in_file = |what, end: u64| {
        if end > size { Err(ImageError::Truncated { what, end, size }) } else { Ok(()) }
    };
    in_file("the real-mode code (setup_sects)", code_offset)?;
    let code_size = size.saturating_sub(code_offset);
    in_file(
        "the protected-mode code (syssize)",
        code_offset.saturating_add(u64::from(header.syssize).saturating_mul(PARAGRAPH)),
    )?;
    in_file(
        "the compressed kernel (payload_length)",
        code_offset
            .saturating_add(u64::from(header.payload_offset))
            .saturating_add(header.payload_length.into()),
    )?;
    in_file("the 64-bit entry", code_offset.saturating_add(ENTRY_64_OFFSET).saturating_add(1))?;

    let load = load_address(&header);
    check_ram(map, "the compressed kernel", load, load.saturating_add(code_size))?;
    let run = run_address(&header, load)?;
    let run_end = run.saturating_add(header.init_size.into());
    check_ram(map, "the unpacked kernel (init_size)", run, run_end)?;

    let code_end = load.saturating_add(code_size);
    let mut occupied = vec![(load, code_end), (run, run_end)];
    occupied.sort_unstable();
    if run <= code_end && load <= run_end {
        occupied = vec![(load.min(run), code_end.max(run_end))];
    }
    Ok(Kernel {
        entry: EntryPoint::Linux64(load.saturating_add(ENTRY_64_OFFSET)),
        occupied,
        cmdline_limit: (header.cmdline_size as usize).min(layout::CMDLINE_MAX_SIZE.saturating_sub(1)),
        initrd_limit: u64::from(header.initrd_addr_max).saturating_add(1).min(layout::MMIO_GAP_START),
        setup_header: Some(header),
        segments: Vec::new(),
    })
}

/// Copies the protected-mode code of a kernel that [`parse`] has accepted to its load address.
pub(super) fn load<F: Read + Seek + ReadVolatile>(
    memory: &GuestMemory,
    image: &mut F,
    header: &setup_header,
) -> Result<(), ImageError> {
    let address = GuestAddress(load_address(header));
    linux_loader::loader::BzImage::load(memory, Some(address), image, None)
        .map(drop)
        .map_err(ImageError::Loader)
}

/// The setup header, cut off where it says that it ends: what follows is code.
fn header_of(head: &[u8], size: u64) -> Result<setup_header, ImageError> {
    let truncated = |end: usize| ImageError::Truncated { what: "the setup header", end: end as u64, size };
    let jump = *head.get(JUMP_OFFSET).ok_or_else(|| truncated(JUMP_END))?;
    let end = JUMP_END.saturating_add(jump.into());
    if end < NEEDED_END {
        // A header of that size has no more than protocol 2.09; its version says the same unless it is broken.
        return Err(match head.get(0x206..0x208) {
            Some(&[minor, major]) if u16::from_le_bytes([minor, major]) < MIN_VERSION => {
                old_protocol(u16::from_le_bytes([minor, major]))
            }
            _ => ImageError::Field {
                field: "jump (size of the setup header)",
                value: jump.into(),
                expected: "it has to be 0x62 or more for protocol 2.12",
            },
        });
    }
    let bytes = head.get(SETUP_HEADER_OFFSET..end).ok_or_else(|| truncated(end))?;
    let mut header = setup_header::default();
    for (to, from) in header.as_mut_slice().iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(header)
}

/// Checks that the kernel can be started by the 64-bit boot protocol.
fn check_protocol(header: &setup_header) -> Result<(), ImageError> {
    let (boot_flag, version, xloadflags, init_size) =
        (header.boot_flag, header.version, header.xloadflags, header.init_size);
    if boot_flag != BOOT_FLAG {
        return Err(ImageError::Field {
            field: "boot_flag",
            value: boot_flag.into(),
            expected: "it has to be 0xaa55",
        });
    }
    if version < MIN_VERSION {
        return Err(old_protocol(version));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(ImageError::Protocol {
            what: format!("that loads low (zImage: loadflags {:#x})", header.loadflags),
        });
    }
    if xloadflags & XLF_KERNEL_64 == 0 {
        return Err(ImageError::Protocol {
            what: format!("without a 64-bit entry (32-bit: xloadflags {xloadflags:#x})"),
        });
    }
    if init_size == 0 {
        return Err(ImageError::Field { field: "init_size", value: 0, expected: "it can't be 0" });
    }
    Ok(())
}

fn old_protocol(version: u16) -> ImageError {
    ImageError::Protocol { what: format!("of boot protocol {}.{:02}", version >> 8, version & 0xff) }
}

/// Size of the real-mode code, its boot sector included, in bytes.
fn setup_size(header: &setup_header) -> u64 {
    let sectors = match header.setup_sects {
        0 => DEFAULT_SETUP_SECTS,
        sectors => sectors.into(),
    };
    sectors.saturating_add(1).saturating_mul(SECTOR)
}

/// Where the protected-mode code is put: where the kernel will run, if that is possible at all, as it then need not be
/// moved and no other memory is touched.
fn load_address(header: &setup_header) -> u64 {
    header.pref_address.max(layout::HIMEM_START)
}

/// Where the kernel unpacks itself to.
fn run_address(header: &setup_header, load: u64) -> Result<u64, ImageError> {
    let alignment = header.kernel_alignment;
    if header.relocatable_kernel == 0 {
        return Ok(load);
    }
    if !alignment.is_power_of_two() {
        return Err(ImageError::Field {
            field: "kernel_alignment",
            value: alignment.into(),
            expected: "it has to be a power of two",
        });
    }
    Ok(load.checked_next_multiple_of(alignment.into()).unwrap_or(u64::MAX))
}
