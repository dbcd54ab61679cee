//! What a kernel with a PVH entry is handed: `hvm_start_info` version 1, its memory map and its modules
//! (Xen, `xen/include/public/arch-x86/hvm/start_info.h`).

use devices::GuestMemory;
use linux_loader::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::ByteValued;

use super::error::BootError;
use super::initrd::Initrd;
use super::memory_map::MemoryMap;
use super::write;
use crate::layout;

/// Module list, behind the start info.
const MODLIST_START: u64 = layout::PVH_INFO_START + size_of::<hvm_start_info>() as u64;
/// Memory map, behind the one module.
const MEMMAP_START: u64 = MODLIST_START + size_of::<hvm_modlist_entry>() as u64;
/// Most ranges that fit before the next structure.
const MAX_RANGES: usize =
    ((layout::GDT_START - MEMMAP_START) / size_of::<hvm_memmap_table_entry>() as u64) as usize;

/// Writes the start info to [`layout::PVH_INFO_START`].
pub(super) fn write_start_info(
    memory: &GuestMemory,
    map: &MemoryMap,
    initrd: Option<Initrd>,
    rsdp: u64,
) -> Result<(), BootError> {
    let count = map.ranges().len();
    if count > MAX_RANGES {
        return Err(BootError::MemoryMapTooLong { count, limit: MAX_RANGES });
    }
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: if initrd.is_some() { MODLIST_START } else { 0 },
        cmdline_paddr: layout::CMDLINE_START,
        rsdp_paddr: rsdp,
        memmap_paddr: MEMMAP_START,
        memmap_entries: count as u32,
        ..hvm_start_info::default()
    };
    let module = initrd.map_or_else(hvm_modlist_entry::default, |initrd| hvm_modlist_entry {
        paddr: initrd.address,
        size: initrd.size,
        ..hvm_modlist_entry::default()
    });
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(info.as_slice());
    bytes.extend_from_slice(module.as_slice());
    for range in map.ranges() {
        let entry = hvm_memmap_table_entry {
            addr: range.start,
            size: range.size(),
            type_: range.kind as u32,
            reserved: 0,
        };
        bytes.extend_from_slice(entry.as_slice());
    }
    write(memory, map, "the PVH start info", layout::PVH_INFO_START, &bytes)
}
