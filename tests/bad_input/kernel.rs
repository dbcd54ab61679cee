//! Kernels and initrds that can't be booted.

use std::fs;

use tempfile::TempDir;

use super::{hello, refused};
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare};

/// A kernel with this content.
struct Kernel(TempDir);

impl Kernel {
    fn new(content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernel"), content).unwrap();
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.path().join("kernel").to_str().unwrap().to_owned()
    }

    /// It is refused, with its name and `words` in the line.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let path = self.path();
        let mut all = vec!["kernel", path.as_str()];
        all.extend(words);
        refused(Rvmm::new().args(["--kernel", &path]), 1, &all);
    }
}

/// A good ELF kernel, to break.
fn elf() -> Vec<u8> {
    fs::read(bare::path("hello")).unwrap()
}

#[track_caller]
fn elf_with(offset: usize, bytes: &[u8], words: &[&str]) {
    let mut elf = elf();
    elf[offset..offset + bytes.len()].copy_from_slice(bytes);
    Kernel::new(&elf).refused(words);
}

/// Offset of the first program header, and of fields of an ELF file (System V ABI, chapters 4 and 5).
const PROGRAM_HEADERS: usize = 64;
const EI_CLASS: usize = 4;
const E_MACHINE: usize = 18;
const P_PADDR: usize = PROGRAM_HEADERS + 24;
const P_FILESZ: usize = PROGRAM_HEADERS + 32;
const P_MEMSZ: usize = PROGRAM_HEADERS + 40;

#[test]
fn a_kernel_that_is_no_file_is_refused() {
    require_kvm!();
    refused(
        Rvmm::new().args(["--kernel", "/no/such/vmlinux"]),
        1,
        &["kernel", "/no/such/vmlinux", "No such file"],
    );
    refused(Rvmm::new().args(["--kernel", "/"]), 1, &["kernel", "directory"]);
    refused(Rvmm::new().args(["--kernel", "/dev/null"]), 1, &["kernel", "/dev/null"]);
    Kernel::new(b"").refused(&["empty"]);
}

#[test]
fn a_kernel_that_is_something_else_is_refused() {
    require_kvm!();
    Kernel::new(b"#!/bin/sh\nexit 0\n").refused(&["vmlinux", "bzImage"]);
    Kernel::new(&[0; 4096]).refused(&["vmlinux", "bzImage"]);
    Kernel::new(b"M").refused(&[]);
}

#[test]
fn a_kernel_truncated_anywhere_is_refused() {
    require_kvm!();
    let elf = elf();
    let notes_and_text = elf.len() - 1024;
    for length in [3, 4, 16, 63, 64, 65, 119, 120, 175, 176, 4096, 4100, notes_and_text.min(4200)] {
        Kernel::new(&elf[..length]).refused(&[]);
    }
}

#[test]
fn a_kernel_for_another_machine_is_refused() {
    require_kvm!();
    elf_with(EI_CLASS, &[1], &["32-bit"]);
    elf_with(E_MACHINE, &183_u16.to_le_bytes(), &["x86-64"]);
}

#[test]
fn a_kernel_outside_of_memory_is_refused() {
    require_kvm!();
    elf_with(P_PADDR, &(4_u64 << 30).to_le_bytes(), &["0x100000000", "RAM"]);
    elf_with(P_PADDR, &u64::MAX.to_le_bytes(), &[]);
    elf_with(P_MEMSZ, &(1_u64 << 30).to_le_bytes(), &["RAM"]);
    elf_with(P_MEMSZ, &u64::MAX.to_le_bytes(), &[]);
    elf_with(P_FILESZ, &u64::MAX.to_le_bytes(), &[]);
    // Into what is not RAM, below 1 MiB.
    elf_with(P_PADDR, &0xa_0000_u64.to_le_bytes(), &[]);
}

#[test]
fn a_kernel_with_overlapping_segments_is_refused() {
    require_kvm!();
    let mut elf = elf();
    // The second program header, the note, becomes a copy of the first, a page of code.
    elf.copy_within(PROGRAM_HEADERS..PROGRAM_HEADERS + 56, PROGRAM_HEADERS + 56);
    Kernel::new(&elf).refused(&["overlap"]);
}

#[test]
fn a_broken_bzimage_is_refused() {
    require_kvm!();
    let mut image = vec![0; 0x4000];
    image[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    let with = |offset: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        Kernel::new(&image)
    };
    // Boot protocol version, then what makes a header of 2.15 with nothing behind it.
    with(0x206, &0x0100_u16.to_le_bytes()).refused(&["bzImage"]);
    with(0x206, &0x0209_u16.to_le_bytes()).refused(&["bzImage", "2.12"]);
    with(0x206, &0x020f_u16.to_le_bytes()).refused(&[]);
    Kernel::new(&image[..0x210]).refused(&[]);
    Kernel::new(&image[..0x206]).refused(&[]);
}

#[test]
fn a_bad_initrd_is_refused() {
    require_kvm!();
    let refused_initrd = |path: &str, words: &[&str]| {
        let mut all = vec!["initrd", path];
        all.extend(words);
        refused(hello().args(["--initrd", path]), 1, &all);
    };
    refused_initrd("/no/such/initrd", &["No such file"]);
    refused_initrd("/", &["directory"]);
    let empty = Disk::with_content(b"");
    refused_initrd(empty.path().to_str().unwrap(), &["empty"]);
    let large = Disk::with_content(b"");
    fs::File::options().write(true).open(large.path()).unwrap().set_len(200 << 20).unwrap();
    refused_initrd(large.path().to_str().unwrap(), &["memory"]);
}
