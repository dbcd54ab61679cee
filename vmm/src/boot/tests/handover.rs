//! What the kernel finds in memory at its start.

use std::io::Write;

use devices::GuestMemory;
use linux_loader::bootparam::boot_params;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};

use crate::boot::fixture::{BzImage, Elf, MIB, memory};
use crate::boot::{BootSource, EntryPoint, load};
use crate::layout;

const RSDP: u64 = layout::ACPI_START;
const CMDLINE: &str = "console=ttyS0 quiet";

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Boots `kernel` with an initrd of 5000 bytes in `ram` bytes of memory.
fn boot(kernel: &[u8], ram: u64) -> (GuestMemory, EntryPoint) {
    let (kernel, initrd) = (file(kernel), file(&[0x5a; 5000]));
    let memory = memory(ram);
    let source =
        BootSource { kernel: kernel.path(), initrd: Some(initrd.path()), cmdline: CMDLINE, rsdp: RSDP };
    let entry = load(&memory, &source).unwrap();
    (memory, entry)
}

fn read<T: vm_memory::ByteValued>(memory: &GuestMemory, address: u64) -> T {
    memory.read_obj(GuestAddress(address)).unwrap()
}

fn cmdline_at(memory: &GuestMemory, address: u64) -> String {
    let bytes = (address..).map(|address| read::<u8>(memory, address));
    String::from_utf8(bytes.take_while(|byte| *byte != 0).collect()).unwrap()
}

#[test]
fn pvh_start_info_names_everything() {
    let (memory, entry) = boot(&Elf::new().pvh(MIB).build(), 128 * MIB);
    assert_eq!(entry, EntryPoint::Pvh(MIB));

    let info: hvm_start_info = read(&memory, layout::PVH_INFO_START);
    assert_eq!((info.magic, info.version, info.flags), (0x336e_c578, 1, 0));
    assert_eq!(info.rsdp_paddr, RSDP);
    assert_eq!(cmdline_at(&memory, info.cmdline_paddr), CMDLINE);

    assert_eq!(info.nr_modules, 1);
    let module: hvm_modlist_entry = read(&memory, info.modlist_paddr);
    assert_eq!((module.paddr, module.size), (128 * MIB - 8192, 5000));
    assert_eq!(read::<[u8; 2]>(&memory, module.paddr + 4999), [0x5a, 0]);

    assert_eq!(info.memmap_entries, 4);
    let last: hvm_memmap_table_entry = read(&memory, info.memmap_paddr + 3 * 24);
    assert_eq!((last.addr, last.size, last.type_), (MIB, 127 * MIB, 1));
}

#[test]
fn zero_page_of_a_bzimage_begins_with_its_own_header() {
    let (memory, entry) = boot(&BzImage::new().build(), 128 * MIB);
    assert_eq!(entry, EntryPoint::Linux64(16 * MIB + 0x200));

    let params: boot_params = read(&memory, layout::ZERO_PAGE_START);
    let header = params.hdr;
    assert_eq!({ header.header }, u32::from_le_bytes(*b"HdrS"));
    assert_eq!({ header.init_size }, 8 << 20);
    assert_eq!(header.type_of_loader, 0xff);
    assert_eq!(({ header.ramdisk_image }, { header.ramdisk_size }), ((128 << 20) - 8192, 5000));
    assert_eq!(cmdline_at(&memory, header.cmd_line_ptr.into()), CMDLINE);
    assert_eq!({ params.acpi_rsdp_addr }, RSDP);
    assert_eq!(params.e820_entries, 4);
    let [low, acpi, generation, high] = [0, 1, 2, 3].map(|index| params.e820_table[index]);
    assert_eq!(({ low.addr }, { low.size }, { low.r#type }), (0, 0x9_fc00, 1));
    assert_eq!(({ acpi.addr }, { acpi.size }, { acpi.r#type }), (0xe_0000, 0x1_f000, 3));
    assert_eq!(({ generation.addr }, { generation.size }, { generation.r#type }), (0xf_f000, 0x1000, 2));
    assert_eq!(({ high.addr }, { high.size }, { high.r#type }), (MIB, 127 * MIB, 1));
    // A sentinel that is not zero makes Linux throw the rest away.
    assert_eq!(params.sentinel, 0);
}

#[test]
fn a_file_has_no_say_in_what_the_loader_fills_in() {
    let image = BzImage::new().header(|header| {
        header.setup_data = 0x1234;
        header.cmd_line_ptr = 0x1234;
        header.ramdisk_image = 0x1234;
    });
    let (kernel, memory) = (file(&image.build()), memory(128 * MIB));
    let source = BootSource { kernel: kernel.path(), initrd: None, cmdline: "", rsdp: RSDP };
    load(&memory, &source).unwrap();
    let header = read::<boot_params>(&memory, layout::ZERO_PAGE_START).hdr;
    assert_eq!(({ header.setup_data }, { header.ramdisk_image }, { header.ramdisk_size }), (0, 0, 0));
    assert_eq!(cmdline_at(&memory, header.cmd_line_ptr.into()), "");
}

#[test]
fn zero_page_of_an_elf_kernel_has_a_header_too() {
    let (memory, entry) = boot(&Elf::new().build(), 128 * MIB);
    assert_eq!(entry, EntryPoint::Linux64(MIB));
    let header = read::<boot_params>(&memory, layout::ZERO_PAGE_START).hdr;
    assert_eq!(({ header.boot_flag }, { header.header }), (0xaa55, u32::from_le_bytes(*b"HdrS")));
    assert_eq!(cmdline_at(&memory, header.cmd_line_ptr.into()), CMDLINE);
}

/// Follows the page tables as a CPU would (Intel SDM 3A, 4.5.4) to where `address` is mapped, if it is.
fn translate(memory: &GuestMemory, address: u64) -> Option<u64> {
    let mut table = layout::PAGE_TABLES_START;
    for shift in [39, 30, 21] {
        let entry: u64 = read(memory, table + (address >> shift & 511) * 8);
        if entry & 1 == 0 {
            return None;
        }
        table = entry & 0x000f_ffff_ffff_f000;
        if entry & 0x80 != 0 {
            return Some(table + address % (1 << shift));
        }
    }
    None
}

#[test]
fn page_tables_map_the_first_gib_to_itself() {
    let (memory, _) = boot(&Elf::new().build(), 128 * MIB);
    for address in [0, layout::ZERO_PAGE_START, MIB, 16 * MIB + 0x234, (1 << 30) - 1] {
        assert_eq!(translate(&memory, address), Some(address), "{address:#x}");
    }
    assert_eq!(translate(&memory, 1 << 30), None);
    assert_eq!(translate(&memory, 1 << 39), None);
}

#[test]
fn page_tables_reach_as_far_as_the_kernel() {
    let image = BzImage::new().header(|header| header.pref_address = (2 << 30) - 4 * MIB);
    let (memory, _) = boot(&image.build(), 5 << 30);
    assert_eq!(translate(&memory, (2 << 30) + 4 * MIB - 1), Some((2 << 30) + 4 * MIB - 1));
}

#[test]
fn descriptors_are_those_that_linux_asks_for() {
    let (memory, _) = boot(&Elf::new().build(), 128 * MIB);
    let gdt: [u64; 4] = read(&memory, layout::GDT_START);
    assert_eq!(gdt, [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);
}
