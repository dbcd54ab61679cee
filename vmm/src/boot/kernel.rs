//! Kernels of any format that is booted: recognised, checked, and copied into guest memory.

use std::io::{Read, Seek, SeekFrom};

use devices::GuestMemory;
use linux_loader::bootparam::setup_header;
use vm_memory::ReadVolatile;

use super::error::ImageError;
use super::format::{Format, HEAD_SIZE};
use super::image::read_at;
use super::memory_map::MemoryMap;
use super::registers::EntryPoint;
use super::{bzimage, elf};
use crate::layout;

/// A kernel whose headers have been checked, and what it asks of its surroundings.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Where the boot vCPU starts.
    pub entry: EntryPoint,
    /// Guest-physical ranges that the kernel takes for itself until it manages memory, in ascending order: first address
    /// and the one after the last.
    pub occupied: Vec<(u64, u64)>,
    /// Longest command line in bytes, without its NUL.
    pub cmdline_limit: usize,
    /// Address below which an initrd has to lie.
    pub initrd_limit: u64,
    /// The setup header of a bzImage, as its zero page begins.
    pub setup_header: Option<setup_header>,
    /// What is copied from an ELF file.
    pub segments: Vec<Segment>,
}

/// Bytes of a file that are copied to guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where they begin in the file.
    pub offset: u64,
    /// Guest-physical address of the first.
    pub address: u64,
    /// How many they are.
    pub len: u64,
}

impl Kernel {
    /// Reads and checks all headers of `image` without touching guest memory.
    ///
    /// `image` may be anything: nothing it says is trusted, and no more is allocated than about 100 KiB.
    pub fn parse<F: Read + Seek>(image: &mut F, map: &MemoryMap) -> Result<Self, ImageError> {
        let size = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
        let mut head = [0; HEAD_SIZE];
        let length = read_at(image, 0, &mut head)?;
        let head = head.get(..length).unwrap_or_default();
        if head.is_empty() {
            return Err(ImageError::Empty);
        }
        match Format::of(head) {
            Format::Elf => elf::parse(image, head, size, map),
            Format::BzImage => bzimage::parse(head, size, map),
            other => Err(ImageError::Format(other)),
        }
    }

    /// Copies the kernel from `image`, which [`Kernel::parse`] was given, into guest memory.
    pub fn load<F: Read + Seek + ReadVolatile>(
        &self,
        memory: &GuestMemory,
        image: &mut F,
    ) -> Result<(), ImageError> {
        match self.setup_header {
            Some(header) => bzimage::load(memory, image, &header),
            None => elf::load(memory, image, &self.segments),
        }
    }

    /// Address after the last that the kernel takes.
    pub fn end(&self) -> u64 {
        self.occupied.last().map_or(layout::HIMEM_START, |range| range.1)
    }
}

/// Checks that `start..end` is RAM where kernels may be: above 1 MiB, clear of everything that this crate writes for the
/// kernel's start, and below the gap, as either boot protocol begins with 32-bit addresses or an identity mapping.
pub(super) fn check_ram(map: &MemoryMap, what: &'static str, start: u64, end: u64) -> Result<(), ImageError> {
    if start >= layout::HIMEM_START && end <= layout::MMIO_GAP_START && map.is_ram(start, end) {
        Ok(())
    } else {
        Err(ImageError::OutsideMemory { what, start, end, ram: map.ram_size() })
    }
}
