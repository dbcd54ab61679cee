//! What a kernel with a 64-bit Linux entry is handed: `boot_params`, the "zero page" (Linux,
//! Documentation/arch/x86/zero-page.rst), a descriptor table and page tables.

use devices::GuestMemory;
use linux_loader::bootparam::{
    E820_MAX_ENTRIES_ZEROPAGE, LOADED_HIGH, boot_e820_entry, boot_params, setup_header,
};
use vm_memory::ByteValued;

use super::error::BootError;
use super::initrd::Initrd;
use super::kernel::Kernel;
use super::memory_map::MemoryMap;
use super::registers::GDT;
use super::write;
use crate::layout;

/// `type_of_loader`: a boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// Page table entries (Intel SDM 3A, 4.5.4): present and writable; maps a page instead of naming a table.
const PRESENT_WRITABLE: u64 = 0x3;
const PAGE_SIZE_BIT: u64 = 1 << 7;
/// Entries in a page table, and the size of one in bytes.
const TABLE_ENTRIES: u64 = 512;
const TABLE_SIZE: u64 = 4096;
/// What a page directory entry maps, and what a whole page directory does, in bytes.
const LARGE_PAGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// Writes the zero page to [`layout::ZERO_PAGE_START`].
pub(super) fn write_boot_params(
    memory: &GuestMemory,
    map: &MemoryMap,
    kernel: &Kernel,
    initrd: Option<Initrd>,
    rsdp: u64,
) -> Result<(), BootError> {
    let count = map.ranges().len();
    if count > E820_MAX_ENTRIES_ZEROPAGE {
        return Err(BootError::MemoryMapTooLong { count, limit: E820_MAX_ENTRIES_ZEROPAGE });
    }
    let mut params = boot_params {
        // An ELF kernel has none; this is what the kernel's own checks look for.
        hdr: kernel.setup_header.unwrap_or_else(|| setup_header {
            boot_flag: 0xaa55,
            header: u32::from_le_bytes(*b"HdrS"),
            version: 0x020f,
            kernel_alignment: LARGE_PAGE as u32,
            ..setup_header::default()
        }),
        acpi_rsdp_addr: rsdp,
        e820_entries: count as u8,
        ..boot_params::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags |= LOADED_HIGH;
    params.hdr.cmd_line_ptr = layout::CMDLINE_START as u32;
    // Both are the loader's to fill; a file has no say in them.
    params.hdr.setup_data = 0;
    params.hdr.ramdisk_image = initrd.map_or(0, |initrd| initrd.address as u32);
    params.hdr.ramdisk_size = initrd.map_or(0, |initrd| initrd.size as u32);
    for (entry, range) in params.e820_table.iter_mut().zip(map.ranges()) {
        *entry = boot_e820_entry { addr: range.start, size: range.size(), r#type: range.kind as u32 };
    }
    write(memory, map, "the zero page", layout::ZERO_PAGE_START, params.as_slice())
}

/// Writes the descriptor table and page tables that map guest-physical addresses to themselves, in 2 MiB pages and as
/// many whole GiB as `end`, the kernel's, needs.
pub(super) fn write_tables(memory: &GuestMemory, map: &MemoryMap, end: u64) -> Result<(), BootError> {
    let gdt: Vec<u8> = GDT.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    write(memory, map, "the descriptor table", layout::GDT_START, &gdt)?;

    const PDPT: u64 = layout::PAGE_TABLES_START + TABLE_SIZE;
    const DIRECTORIES: u64 = PDPT + TABLE_SIZE;
    let gibs = end.div_ceil(GIB).clamp(1, layout::MMIO_GAP_START.div_ceil(GIB));
    let table =
        |entries: &mut dyn Iterator<Item = u64>| -> Vec<u8> { entries.flat_map(u64::to_le_bytes).collect() };

    let pml4 = table(&mut [PDPT | PRESENT_WRITABLE].into_iter());
    let pdpt = table(&mut (0..gibs).map(|gib| (DIRECTORIES + gib * TABLE_SIZE) | PRESENT_WRITABLE));
    let directories = table(
        &mut (0..gibs * TABLE_ENTRIES).map(|page| (page * LARGE_PAGE) | PRESENT_WRITABLE | PAGE_SIZE_BIT),
    );
    const WHAT: &str = "the page tables";
    write(memory, map, WHAT, layout::PAGE_TABLES_START, &pml4)?;
    write(memory, map, WHAT, PDPT, &pdpt)?;
    write(memory, map, WHAT, DIRECTORIES, &directories)
}
