//! Tiny kernels for tests, built field by field so that a test can break one.

use std::io::Cursor;

use devices::GuestMemory;
use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use linux_loader::elf::{
    EI_CLASS, EI_DATA, EI_VERSION, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_EXEC, Elf64_Ehdr, Elf64_Phdr,
    PT_LOAD, PT_NOTE,
};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{ByteValued, GuestAddress, GuestRegionMmap};

use super::{ImageError, Kernel, MemoryMap};
use crate::layout;

/// Size of ELF and program headers in bytes.
pub(super) const EHDR: usize = size_of::<Elf64_Ehdr>();
pub(super) const PHDR: usize = size_of::<Elf64_Phdr>();
pub(super) const MIB: u64 = 1 << 20;

/// Guest memory of these regions: first address and size in bytes.
pub(super) fn memory_of(regions: &[(u64, u64)]) -> GuestMemory {
    let region = |&(start, size): &(u64, u64)| {
        let mapping = MmapRegionBuilder::new_with_bitmap(size as usize, None)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build()
            .unwrap();
        GuestRegionMmap::new(mapping, GuestAddress(start)).unwrap()
    };
    GuestMemory::from_regions(regions.iter().map(region).collect()).unwrap()
}

/// Guest memory of `size` bytes, with the gap below 4 GiB where it is due.
pub(crate) fn memory(size: u64) -> GuestMemory {
    let low = size.min(layout::MMIO_GAP_START);
    let regions = [(0, low), (layout::HIGH_RAM_START, size - low)];
    memory_of(if size > low { &regions } else { &regions[..1] })
}

/// Parses an image against 32 MiB of memory, and loads it when it is accepted.
pub(super) fn load(image: &[u8]) -> Result<(GuestMemory, Kernel), ImageError> {
    let memory = memory(32 * MIB);
    let mut image = Cursor::new(image);
    let kernel = Kernel::parse(&mut image, &MemoryMap::new(&memory))?;
    kernel.load(&memory, &mut image)?;
    Ok((memory, kernel))
}

/// An ELF kernel: headers first, then what the segments hold, in order.
#[derive(Clone)]
pub(super) struct Elf {
    pub(super) header: Elf64_Ehdr,
    pub(super) segments: Vec<(Elf64_Phdr, Vec<u8>)>,
}

impl Elf {
    /// A kernel of 32 bytes of code and 4 KiB of `.bss` at 1 MiB, with its entry at its start.
    pub(super) fn new() -> Self {
        let mut header = Elf64_Ehdr {
            e_type: ET_EXEC,
            e_machine: EM_X86_64,
            e_version: 1,
            e_entry: MIB,
            e_phoff: EHDR as u64,
            e_ehsize: EHDR as u16,
            e_phentsize: PHDR as u16,
            ..Elf64_Ehdr::default()
        };
        header.e_ident[..4].copy_from_slice(b"\x7fELF");
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_ident[EI_VERSION] = 1;
        Self { header, segments: Vec::new() }.load(MIB, &[0xf4; 32], 4096)
    }

    /// Adds a segment of `data` at `address`, with `bss` zeroes behind it.
    pub(super) fn load(mut self, address: u64, data: &[u8], bss: u64) -> Self {
        let segment = Elf64_Phdr {
            p_type: PT_LOAD,
            p_paddr: address,
            p_vaddr: address,
            p_memsz: data.len() as u64 + bss,
            ..Elf64_Phdr::default()
        };
        self.segments.push((segment, data.to_vec()));
        self
    }

    /// Adds a note segment.
    pub(super) fn notes(mut self, notes: &[u8]) -> Self {
        let segment = Elf64_Phdr { p_type: PT_NOTE, p_align: 4, ..Elf64_Phdr::default() };
        self.segments.push((segment, notes.to_vec()));
        self
    }

    /// Adds a PVH entry note for `address`, behind a note of another kind.
    pub(super) fn pvh(self, address: u64) -> Self {
        let notes = [note(b"GNU\0", 3, b"build"), note(b"Xen\0", 18, &address.to_le_bytes())];
        self.notes(&notes.concat())
    }

    /// Sets something in the last segment's header.
    pub(super) fn last(mut self, edit: impl FnOnce(&mut Elf64_Phdr)) -> Self {
        edit(&mut self.segments.last_mut().unwrap().0);
        self
    }

    /// Sets something in the file header.
    pub(super) fn header(mut self, edit: impl FnOnce(&mut Elf64_Ehdr)) -> Self {
        edit(&mut self.header);
        self
    }

    /// The file. Offsets, sizes and counts that are still zero are filled in.
    pub(super) fn build(&self) -> Vec<u8> {
        let mut header = self.header;
        if header.e_phnum == 0 {
            header.e_phnum = self.segments.len() as u16;
        }
        let mut offset = (EHDR + self.segments.len() * PHDR) as u64;
        let (mut table, mut contents) = (Vec::new(), Vec::new());
        for (segment, data) in &self.segments {
            let mut segment = *segment;
            if segment.p_offset == 0 {
                segment.p_offset = offset;
            }
            if segment.p_filesz == 0 {
                segment.p_filesz = data.len() as u64;
            }
            table.extend_from_slice(segment.as_slice());
            contents.extend_from_slice(data);
            offset += data.len() as u64;
        }
        [header.as_slice(), &table, &contents].concat()
    }
}

/// A note with 4-byte alignment.
pub(super) fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut bytes = [name.len() as u32, descriptor.len() as u32, kind].map(u32::to_le_bytes).concat();
    for part in [name, descriptor] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A bzImage: its setup header, and the protected-mode code.
#[derive(Clone)]
pub(super) struct BzImage {
    pub(super) header: setup_header,
    pub(super) code: Vec<u8>,
}

impl BzImage {
    /// A relocatable kernel of 4 KiB that prefers 16 MiB and unpacks to 8 MiB, as headers of Linux 6 are.
    pub(super) fn new() -> Self {
        let header = setup_header {
            setup_sects: 3,
            syssize: 4096 / 16,
            boot_flag: 0xaa55,
            jump: u16::from_le_bytes([0xeb, 0x6a]),
            header: u32::from_le_bytes(*b"HdrS"),
            version: 0x020f,
            loadflags: LOADED_HIGH,
            code32_start: 0x10_0000,
            initrd_addr_max: 0x7fff_ffff,
            kernel_alignment: 0x20_0000,
            relocatable_kernel: 1,
            min_alignment: 21,
            xloadflags: XLF_KERNEL_64,
            cmdline_size: 2047,
            payload_offset: 0x300,
            payload_length: 0x100,
            pref_address: 16 * MIB,
            init_size: 8 << 20,
            ..setup_header::default()
        };
        Self { header, code: (0..4096_u32).map(|byte| byte as u8 | 1).collect() }
    }

    /// Sets something in the setup header.
    pub(super) fn header(mut self, edit: impl FnOnce(&mut setup_header)) -> Self {
        edit(&mut self.header);
        self
    }

    /// The file.
    pub(super) fn build(&self) -> Vec<u8> {
        let sectors = if self.header.setup_sects == 0 { 4 } else { usize::from(self.header.setup_sects) };
        let mut bytes = vec![0; 0x1f1];
        bytes.extend_from_slice(self.header.as_slice());
        bytes.resize((sectors + 1) * 512, 0);
        bytes.extend_from_slice(&self.code);
        bytes
    }
}
