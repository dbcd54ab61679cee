//! Uncompressed x86-64 kernels: ELF files with or without a PVH entry.
//!
//! Formats: the ELF-64 object file format (TIS 1.2, "ELF header", "Program header", "Note section"), and for the entry
//! note Xen's `xen/include/public/elfnote.h`.

use std::io::{Read, Seek, SeekFrom};

use devices::GuestMemory;
use linux_loader::elf::{
    self, EI_CLASS, EI_DATA, EI_VERSION, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_CORE, ET_DYN, ET_EXEC,
    ET_REL, EV_CURRENT, Elf64_Ehdr, Elf64_Nhdr, Elf64_Phdr, PT_INTERP, PT_LOAD, PT_NOTE,
};
use vm_memory::{ByteValued, Bytes as _, GuestAddress, ReadVolatile};

use super::error::ImageError;
use super::image::read_exact_at;
use super::kernel::{Kernel, Segment, check_ram};
use super::memory_map::MemoryMap;
use super::registers::EntryPoint;
use crate::layout;

/// Most program headers that are read; kernels have about five.
const MAX_PROGRAM_HEADERS: u16 = 128;
/// Bytes of notes that are read from one segment, from its start on; Linux has about 500.
const MAX_NOTES_SIZE: u64 = 64 << 10;
/// Longest command line without its NUL: Linux, `COMMAND_LINE_SIZE` in arch/x86/include/asm/setup.h is 2048.
const CMDLINE_LIMIT: usize = 2047;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the physical address of the PVH entry.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// Name of Xen's notes.
const XEN_NOTE_NAME: &[u8] = b"Xen\0";

/// Checks every header of the kernel, whose first bytes are `head`, and says where it wants to be.
pub(super) fn parse<F: Read + Seek>(
    image: &mut F,
    head: &[u8],
    size: u64,
    map: &MemoryMap,
) -> Result<Kernel, ImageError> {
    let header = file_header(head, size)?;
    let segments = program_headers(image, head, size, &header)?;

    let mut occupied: Vec<(u64, u64)> = Vec::new();
    let mut code: Vec<(u64, u64)> = Vec::new();
    let mut loads = Vec::new();
    let mut pvh_entry = None;
    for segment in &segments {
        match segment.p_type {
            PT_LOAD if segment.p_memsz > 0 || segment.p_filesz > 0 => {
                let (start, file_end, end) = load_segment(segment, size, map)?;
                code.push((start, file_end));
                occupied.push((start, end));
                loads.push(Segment { offset: segment.p_offset, address: start, len: file_end - start });
            }
            PT_NOTE if pvh_entry.is_none() => pvh_entry = find_pvh_entry(image, segment, size)?,
            PT_INTERP => return Err(ImageError::Kind { what: "a dynamically linked program or library" }),
            _ => {}
        }
    }
    if occupied.is_empty() {
        return Err(ImageError::Kind { what: "an ELF file without loadable segments (PT_LOAD)" });
    }
    occupied.sort_unstable();
    for pair in occupied.windows(2) {
        if let [first, second] = pair
            && second.0 < first.1
        {
            return Err(ImageError::Overlap { first: *first, second: *second });
        }
    }

    let (entry, field, address) = match pvh_entry {
        Some(address) => (EntryPoint::Pvh(address), "XEN_ELFNOTE_PHYS32_ENTRY", address),
        None => (EntryPoint::Linux64(header.e_entry), "e_entry", header.e_entry),
    };
    if !code.iter().any(|(start, end)| (*start..*end).contains(&address)) {
        return Err(ImageError::Field {
            field,
            value: address,
            expected: "it has to be a physical address inside a loaded segment",
        });
    }
    Ok(Kernel {
        entry,
        occupied,
        cmdline_limit: CMDLINE_LIMIT,
        initrd_limit: layout::MMIO_GAP_START,
        setup_header: None,
        segments: loads,
    })
}

/// Copies the segments of a kernel that [`parse`] has accepted to where they want to be.
pub(super) fn load<F: Seek + ReadVolatile>(
    memory: &GuestMemory,
    image: &mut F,
    segments: &[Segment],
) -> Result<(), ImageError> {
    for Segment { offset, address, len } in segments {
        image.seek(SeekFrom::Start(*offset)).map_err(ImageError::Read)?;
        let len = usize::try_from(*len).unwrap_or(usize::MAX);
        memory.read_exact_volatile_from(GuestAddress(*address), image, len).map_err(ImageError::Copy)?;
    }
    Ok(())
}

/// The ELF header, if it is one of a 64-bit x86 executable.
fn file_header(head: &[u8], size: u64) -> Result<Elf64_Ehdr, ImageError> {
    if let Some(class) = head.get(EI_CLASS).filter(|class| **class != ELFCLASS64) {
        return Err(match *class {
            elf::ELFCLASS32 => ImageError::Machine { what: "for a 32-bit machine".into() },
            class => field("EI_CLASS", class, "it has to be 2 (ELFCLASS64)"),
        });
    }
    match head.get(EI_DATA) {
        Some(&elf::ELFDATA2MSB) => {
            return Err(ImageError::Machine { what: "for a big-endian machine".into() });
        }
        Some(&data) if data != ELFDATA2LSB => {
            return Err(field("EI_DATA", data, "it has to be 1 (ELFDATA2LSB)"));
        }
        _ => {}
    }
    let mut header = Elf64_Ehdr::default();
    let bytes = head.get(..size_of::<Elf64_Ehdr>()).ok_or(ImageError::Truncated {
        what: "the ELF header",
        end: size_of::<Elf64_Ehdr>() as u64,
        size,
    })?;
    header.as_mut_slice().copy_from_slice(bytes);

    if header.e_machine != EM_X86_64 {
        return Err(ImageError::Machine { what: format!("for {}", machine_name(header.e_machine)) });
    }
    match header.e_type {
        ET_EXEC | ET_DYN => {}
        ET_REL => return Err(ImageError::Kind { what: "an object file or kernel module (ET_REL)" }),
        ET_CORE => return Err(ImageError::Kind { what: "a core dump (ET_CORE)" }),
        kind => return Err(field("e_type", kind, "it has to be 2 (ET_EXEC) or 3 (ET_DYN)")),
    }
    let version = header.e_ident[EI_VERSION];
    if version != EV_CURRENT {
        return Err(field("EI_VERSION", version, "it has to be 1"));
    }
    if header.e_version != u32::from(EV_CURRENT) {
        return Err(field("e_version", header.e_version, "it has to be 1"));
    }
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return Err(field("e_phentsize", header.e_phentsize, "it has to be 56"));
    }
    if header.e_phoff < size_of::<Elf64_Ehdr>() as u64 {
        return Err(field("e_phoff", header.e_phoff, "it has to be 64 or more"));
    }
    if header.e_phnum == 0 || header.e_phnum > MAX_PROGRAM_HEADERS {
        return Err(field("e_phnum", header.e_phnum, "it has to be 1 to 128"));
    }
    Ok(header)
}

/// The program headers.
fn program_headers<F: Read + Seek>(
    image: &mut F,
    head: &[u8],
    size: u64,
    header: &Elf64_Ehdr,
) -> Result<Vec<Elf64_Phdr>, ImageError> {
    let length = usize::from(header.e_phnum).saturating_mul(size_of::<Elf64_Phdr>());
    let start = usize::try_from(header.e_phoff).unwrap_or(usize::MAX);
    let mut elsewhere = Vec::new();
    let table = if let Some(table) = head.get(start..start.saturating_add(length)) {
        table
    } else {
        elsewhere.resize(length, 0);
        read_exact_at(image, "the program header table", header.e_phoff, &mut elsewhere, size)?;
        &elsewhere
    };
    Ok(table
        .chunks_exact(size_of::<Elf64_Phdr>())
        .map(|bytes| {
            let mut segment = Elf64_Phdr::default();
            segment.as_mut_slice().copy_from_slice(bytes);
            segment
        })
        .collect())
}

/// Checks a `PT_LOAD` segment and returns its first address, the one after what comes from the file, and its end.
fn load_segment(segment: &Elf64_Phdr, size: u64, map: &MemoryMap) -> Result<(u64, u64, u64), ImageError> {
    if segment.p_filesz > segment.p_memsz {
        return Err(field("p_filesz", segment.p_filesz, "it can't be more than the segment's p_memsz"));
    }
    in_file("a loadable segment (PT_LOAD)", segment, size)?;
    let start = segment.p_paddr;
    let end = start.saturating_add(segment.p_memsz);
    check_ram(map, "a loadable segment (PT_LOAD)", start, end)?;
    Ok((start, start.saturating_add(segment.p_filesz), end))
}

/// Checks that the file does not end before the segment does.
fn in_file(what: &'static str, segment: &Elf64_Phdr, size: u64) -> Result<(), ImageError> {
    let end = segment.p_offset.saturating_add(segment.p_filesz);
    if end > size { Err(ImageError::Truncated { what, end, size }) } else { Ok(()) }
}

/// Looks for the PVH entry among the notes of a `PT_NOTE` segment.
fn find_pvh_entry<F: Read + Seek>(
    image: &mut F,
    segment: &Elf64_Phdr,
    size: u64,
) -> Result<Option<u64>, ImageError> {
    const WHAT: &str = "a note segment (PT_NOTE)";
    in_file(WHAT, segment, size)?;
    let mut notes = vec![0; segment.p_filesz.min(MAX_NOTES_SIZE) as usize];
    read_exact_at(image, WHAT, segment.p_offset, &mut notes, size)?;
    // Toolchains pad notes to 4 bytes whatever p_align is, and to 8 if it is 8.
    let paddings: &[usize] = if segment.p_align == 8 { &[8, 4] } else { &[4] };
    let found = paddings.iter().find_map(|padding| pvh_note(&notes, *padding));
    found.map(pvh_entry).transpose()
}

/// The descriptor of the PVH entry's note. Notes from one on that is broken are not looked at.
fn pvh_note(notes: &[u8], padding: usize) -> Option<&[u8]> {
    let mut offset = 0_usize;
    loop {
        let name_start = offset.checked_add(size_of::<Elf64_Nhdr>())?;
        let mut note = Elf64_Nhdr::default();
        note.as_mut_slice().copy_from_slice(notes.get(offset..name_start)?);
        let name_end = name_start.checked_add(note.n_namesz as usize)?;
        let name = notes.get(name_start..name_end)?;
        let start = name_end.checked_next_multiple_of(padding)?;
        let end = start.checked_add(note.n_descsz as usize)?;
        let descriptor = notes.get(start..end)?;
        if note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && name == XEN_NOTE_NAME {
            return Some(descriptor);
        }
        offset = end.checked_next_multiple_of(padding)?;
    }
}

/// The address in the descriptor of the PVH entry's note: 4 bytes as Xen specifies it, or a pointer's 8 as Linux writes it.
fn pvh_entry(descriptor: &[u8]) -> Result<u64, ImageError> {
    let long = descriptor.first_chunk::<8>().map(|long| u64::from_le_bytes(*long));
    let short = || descriptor.first_chunk::<4>().map(|short| u64::from(u32::from_le_bytes(*short)));
    let size = descriptor.len() as u64;
    let address = long
        .or_else(short)
        .ok_or_else(|| field("n_descsz of XEN_ELFNOTE_PHYS32_ENTRY", size, "it has to be 4 or 8"))?;
    if address > u64::from(u32::MAX) {
        return Err(field("XEN_ELFNOTE_PHYS32_ENTRY", address, "it has to be below 4 GiB"));
    }
    Ok(address)
}

fn field(field: &'static str, value: impl Into<u64>, expected: &'static str) -> ImageError {
    ImageError::Field { field, value: value.into(), expected }
}

/// What an `e_machine` number stands for, where it is a machine that Linux runs on.
fn machine_name(machine: u16) -> String {
    let name = match machine {
        elf::EM_386 => "32-bit x86",
        elf::EM_ARM => "32-bit ARM",
        elf::EM_AARCH64 => "AArch64",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC | elf::EM_PPC64 => "PowerPC",
        elf::EM_S390 => "s390",
        elf::EM_MIPS => "MIPS",
        elf::EM_LOONGARCH => "LoongArch",
        _ => return format!("another machine (e_machine {machine})"),
    };
    name.into()
}
